package mirror

import (
	"fmt"
	"os"

	"github.com/firedrill/firedrill/pkg/drill"
)

// ReadInventory reads the inventory's stores and mirrors from a file, and checks
// them; "" is an empty one. The configurations of targets are the injector's to check. The error of what
// the file says is *drill.Problems.
func ReadInventory(path string) (drill.Inventory, error) {
	if path == "" {
		return drill.Inventory{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	inv, err := drill.ParseInventory(data, CheckInventory)
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory %s: %w", path, err)
	}
	return inv, nil
}

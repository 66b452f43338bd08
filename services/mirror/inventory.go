package mirror

import (
	"fmt"
	"os"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/stores"
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

// Here finds what of a valid inventory this process could not use: secrets and
// certificates that are not found, users and groups that are not known. Another machine or
// another user may have them, so that none of it makes the inventory invalid. The fields
// are those of the inventory.
func Here(inv drill.Inventory) []drill.Problem {
	out := stores.Unresolved(inv.Spec.Stores)
	for i, m := range inv.Spec.Mirrors {
		for _, p := range job.Strangers(m.Permissions) {
			p.Field = fmt.Sprintf("spec.mirrors[%d].%s", i, p.Field)
			out = append(out, p)
		}
	}
	return out
}

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror"
)

func (a *app) validateCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "validate FILE...", Short: "Check drills, inventories and requests to undo, without running anything", Args: cobra.MinimumNArgs(1),
		Long: `Check drills, inventories and requests to undo, without running anything. A drill
that names entries is checked with the inventory of --inventory, else with that of
the running firedrill; one that brings everything itself is checked here. What
would keep a valid drill from being run right now is said too: a running firedrill
whose inventory does not allow it, a halt, or a drill that was left. So is what an
inventory's stores and mirrors name and this machine does not have: secrets, users and
groups; and rules for permissions of two mirrors that contradict each other if there is
a file that both are for. Whether the secrets of targets are there is seen when a drill is planned.`,
		RunE: func(cmd *cobra.Command, files []string) error {
			bad := 0
			for _, f := range files {
				v := a.validate(cmd.Context(), f)
				if v.err != nil {
					bad++
				}
				switch {
				case asJSON:
					if err := writeJSON(a.Out, v.json(f)); err != nil {
						return err
					}
				case v.err != nil:
					fmt.Fprintln(a.Err, v.err)
				default:
					fmt.Fprintf(a.Out, "%s: valid%s\n", f, v.note)
					for _, c := range v.caveats {
						fmt.Fprintf(a.Out, "  but %s\n", c)
					}
				}
			}
			if bad > 0 {
				return &exitError{code: run.BadArguments}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object a file")
	a.inventoryFlag(c.Flags(), inventoryUsage)
	return c
}

// validated is what came of checking a file.
type validated struct {
	// kind is what the file says that it is; note tells it, if it is no drill.
	kind, note string
	// caveats keep what is valid from being run right now, or here.
	caveats []string
	err     error
}

func (v validated) json(file string) map[string]any {
	out := map[string]any{"file": file, "kind": v.kind, "valid": v.err == nil, "problems": drill.AsProblems(v.err)}
	if len(v.caveats) > 0 {
		out["caveats"] = v.caveats
	}
	return out
}

// validate checks a file as what its kind says that it is.
func (a *app) validate(ctx context.Context, path string) validated {
	raw, err := a.readFile(path)
	if err != nil {
		return validated{err: err}
	}
	v := validated{kind: drill.KindOf(raw)}
	switch v.kind {
	case drill.InventoryKind:
		var inv drill.Inventory
		inv, v.err = drill.ReadInventory(raw, injector.Catalogue(a.registry), mirror.CheckInventory)
		v.note = fmt.Sprintf(", an inventory (targets: %d, mirrors: %d)", len(inv.Spec.Targets), len(inv.Spec.Mirrors))
		if v.err == nil {
			v.caveats = append(doubts(inv), missingHere(inv)...)
		}
	case drill.UndoKind:
		var u drill.Undo
		u, v.err = drill.ParseUndo(raw)
		v.note = ", a request to undo " + u.Spec.Drill
	default:
		if _, v.err = a.checkDrill(ctx, injector.VerbValidate, raw); v.err == nil {
			v.caveats = a.caveats(ctx, raw)
		}
	}
	if v.err != nil {
		v.err = fmt.Errorf("%s: %w", path, v.err)
	}
	return v
}

// doubts says what of an inventory depends on what there is in its mirrors' places.
func doubts(inv drill.Inventory) (out []string) {
	for _, p := range mirror.Doubts(inv) {
		out = append(out, p.Error())
	}
	return out
}

// missingHere says what an inventory names and this machine does not have, and which of its
// buckets are reached without keys. Neither makes it invalid: another machine may run it.
func missingHere(inv drill.Inventory) (out []string) {
	for _, p := range mirror.Here(inv) {
		out = append(out, fmt.Sprintf("not from here: %s: %q: %s", p.Field, p.Value, p.Fix))
	}
	for i, s := range inv.Spec.Stores {
		if s.AccessKey == nil && s.SecretKey == nil {
			out = append(out, fmt.Sprintf("spec.stores[%d]: %q has no accessKey and secretKey: its buckets are used without keys, as anybody may", i, s.Name))
		}
	}
	return out
}

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/injector"
)

// undoName is what settlements are called: their ids are undo-<sequence>.
const undoName = "undo"

func (a *app) undoCmd() *cobra.Command {
	var o runOptions
	var with, letGo string
	c := &cobra.Command{
		Use:   "undo DRILL",
		Short: "Try again what a drill could not undo",
		Long: `Undo what an earlier drill left outstanding. Until that succeeded, no new drill
runs on its systems. It becomes a drill of its own, with a report, and ends with
exit code 0 when nothing is outstanding any more.

Targets that the drill took from the inventory get what their entries say today.
One that it brought itself, with a mistake or an address that has changed since, is
described anew by --with: a drill's file, of which only spec.targets is read. Each
must still be the system that the drill changed, or nothing is done to it.

Was it mended by hand? An undo that finds everything in its place does nothing, and
says so. Where it cannot even look, --let-go REASON frees the systems on your word:
nothing is touched, the history has who said it and why, and the exit code is 2.`,
		Args: oneDrill,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !event.IsDrillID(args[0]) {
				return fmt.Errorf("%q: %w", args[0], errNoDrill)
			}
			anew, err := a.targetsOf(with)
			if err != nil {
				return err
			}
			raw, err := injector.UndoRequest(undoName, drill.UndoSpec{Drill: args[0], Targets: anew, LetGo: letGo})
			if err != nil {
				return failure(err)
			}
			return a.run(cmd.Context(), document{raw: raw, name: undoName}, o)
		},
	}
	o.register(c.Flags())
	c.Flags().StringVar(&with, "with", "", "drill's file whose spec.targets describe the targets as they are now")
	c.Flags().StringVar(&letGo, "let-go", "", "undo nothing and free the systems; `REASON` says how they were seen to")
	a.inventoryFlag(c.Flags(), "file that lists systems that targets name, when this undo has a firedrill of its own")
	return c
}

// targetsOf reads the targets of a drill's file; none without a file.
func (a *app) targetsOf(path string) ([]drill.Target, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := a.readFile(path)
	if err != nil {
		return nil, err
	}
	d, err := drill.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d.Spec.Targets, nil
}

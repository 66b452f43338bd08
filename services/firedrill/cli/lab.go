package cli

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/schemas"
)

//go:embed drills/postgres-kill-primary.yaml
var labDrill string

func (a *app) labCmd() *cobra.Command {
	c := &cobra.Command{Use: "lab", Short: "Start and stop a real PostgreSQL to practise on"}
	c.AddCommand(a.labUpCmd(), a.labDownCmd(), a.labRelayCmd())
	return c
}

func (a *app) labUpCmd() *cobra.Command {
	o := lab.PostgresOptions{}
	var dir, name string
	var stable time.Duration
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a primary and a streaming standby, and write a drill for them",
		Long: `Start PostgreSQL, a primary and a streaming standby with a service endpoint in
front, on loopback, in a directory. It goes on running until firedrill lab down.
It writes a ready drill.yaml for firedrill run, and for a running firedrill an
inventory.yaml and a request.yaml that names its entry.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.labUp(cmd.Context(), dir, name, stable, o) },
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "out/lab", "directory of the lab")
	f.StringVar(&name, "name", "postgres-kill-primary", "name of the drill that is written")
	f.DurationVar(&stable, "stable", 30*time.Second, "stable window of the drill that is written")
	f.BoolVar(&o.Synchronous, "sync", false, "commits wait for the standby")
	f.DurationVar(&o.LinkDelay, "link-delay", 0, "one-way delay of the replication link")
	f.Int64Var(&o.LinkRate, "link-rate", 0, "bytes per second of the replication link; 0 is unlimited")
	f.StringVar(&o.Evidence, "evidence", "", "directory for the evidence that drills keep; default: one in the lab's, which firedrill lab down removes")
	f.IntVar(&o.Rows, "rows", 10000, "rows of the sample table")
	f.BoolVar(&o.PgBouncer, "pgbouncer", false, "put PgBouncer in front of the service")
	return c
}

func (a *app) labUp(ctx context.Context, dir, name string, stable time.Duration, o lab.PostgresOptions) error {
	log, err := a.log()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return failure(err)
	}
	o.Log = log
	if err := checkLabFlags(name, stable, o); err != nil {
		return err
	}
	rec, err := lab.Up(ctx, dir, lab.UpOptions{Postgres: o, RelayCommand: []string{self, "lab", "relay"}})
	if errors.Is(err, lab.ErrLabExists) {
		return err // the caller's mistake, unlike what else may go wrong
	}
	if err != nil {
		return failure(err)
	}
	path, err := writeLabDrill(rec, name, stable, o)
	if err != nil {
		return failure(err)
	}
	fmt.Fprintf(a.Out, "PostgreSQL is up: service 127.0.0.1:%d, nodes a (primary) and b (standby)\nnext: firedrill run %s\n", rec.ServicePort, path)
	return nil
}

// checkLabFlags refuses flags that no lab, or no drill of it, could be made of.
func checkLabFlags(name string, stable time.Duration, o lab.PostgresOptions) error {
	raw, err := json.Marshal(drill.Drill{Metadata: drill.Metadata{Name: name}})
	if err != nil {
		return fmt.Errorf("--name %q: %w", name, err)
	}
	_, err = drill.Parse(raw)
	for _, p := range drill.AsProblems(err) {
		if p.Field == "metadata.name" {
			return fmt.Errorf("--name %q: %s", name, p.Fix)
		}
	}
	switch {
	case stable <= 0:
		return fmt.Errorf("--stable %s: use a time above 0, such as 30s", stable)
	case o.Rows < 0:
		return fmt.Errorf("--rows %d: use 0 or more", o.Rows)
	case o.LinkDelay < 0:
		return fmt.Errorf("--link-delay %s: use 0 or more", o.LinkDelay)
	case o.LinkRate < 0:
		return fmt.Errorf("--link-rate %d: use 0, for no limit, or more", o.LinkRate)
	}
	return nil
}

// writeLabDrill writes what fits the lab: a drill that brings everything itself,
// an inventory with a request for it, and the schemas that editors need.
func writeLabDrill(rec lab.Record, name string, stable time.Duration, o lab.PostgresOptions) (string, error) {
	tmpl, err := template.New("drill").Parse(labDrill)
	if err != nil {
		return "", err
	}
	title := "Loss of the primary, asynchronous standby"
	if o.Synchronous {
		title = "Loss of the primary, synchronous standby"
	}
	home, _ := rec.Node("a")
	config := string(compact(rec.Config))
	files := map[string][]byte{"drill.schema.json": schemas.Drill(), "inventory.schema.json": schemas.Inventory()}
	for file, target := range map[string]string{"drill.yaml": "driver: postgres\n      config: " + config, "request.yaml": "inventory: orders"} {
		var out bytes.Buffer
		err := tmpl.Execute(&out, map[string]any{
			"Name": name, "Title": title, "Stable": stable, "Target": target,
			"OldWAL": filepath.Join(home.DataDir, "pg_wal"), "Evidence": filepath.Join(rec.Evidence, "{drill}", "old-wal"),
		})
		if err != nil {
			return "", err
		}
		files[file] = out.Bytes()
	}
	files["inventory.yaml"] = fmt.Appendf(nil, labInventory, config, filepath.Join(home.DataDir, "pg_wal"), rec.Evidence)
	for file, data := range files {
		if err := os.WriteFile(filepath.Join(rec.Dir, file), data, 0o644); err != nil {
			return "", err
		}
	}
	return filepath.Join(rec.Dir, "drill.yaml"), nil
}

// labInventory lets requests drill the lab and keep its evidence.
const labInventory = `# What requests may drill. Start firedrill with --inventory and this file.
# yaml-language-server: $schema=./inventory.schema.json
apiVersion: firedrill/v1
kind: Inventory
spec:
  targets:
    - name: orders
      driver: postgres
      config: %s
  keepFrom: ["dir:%s"]
  keepTo: ["dir:%s"]
`

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

func (a *app) labDownCmd() *cobra.Command {
	var dir string
	var force bool
	c := &cobra.Command{
		Use: "down", Short: "Stop a lab and remove its files", Args: cobra.NoArgs,
		Long: `Stop a lab and remove its files, with the evidence in it. While a drill of the
firedrill of this state directory is not at its end, that is refused: the drill could
not put back what it broke, and what it kept would be gone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rec, err := lab.Read(dir)
			if err != nil {
				return fmt.Errorf("--dir %s: %w", dir, err)
			}
			if !force {
				if err := a.nothingUnderWay(cmd.Context()); err != nil {
					return err
				}
			}
			if err := lab.Down(cmd.Context(), dir); err != nil {
				return failure(err)
			}
			fmt.Fprintf(a.Out, "PostgreSQL is stopped, and %s is removed", dir)
			if rec.Evidence == "" || strings.HasPrefix(rec.Evidence, rec.Dir+"/") {
				fmt.Fprintln(a.Out, " with all that drills kept in it")
			} else {
				fmt.Fprintf(a.Out, "; what drills kept is in %s\n", rec.Evidence)
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "out/lab", "directory of the lab")
	c.Flags().BoolVar(&force, "force", false, "stop it although a drill may need it")
	return c
}

// nothingUnderWay refuses while a drill of this state directory is not at its end,
// whoever conducts it or left it.
func (a *app) nothingUnderWay(ctx context.Context) error {
	here := *a
	here.nats = bus.Options{}
	if !here.hasStore() {
		return nil
	}
	var drills []bus.Summary
	err := here.withRunningOrStore(ctx, func(ctx context.Context, b *bus.Bus, _ bool) (err error) {
		drills, err = unfinished(ctx, b)
		return err
	})
	switch {
	case errors.Is(err, errChanging):
		return errors.New("a firedrill is just starting or ending in this state directory: try again; --force stops the lab all the same")
	case err != nil:
		return fmt.Errorf("looking for drills that need the lab: %w; --force stops it all the same", err)
	case len(drills) > 0:
		id := drills[0].Drill
		return fmt.Errorf("drill %s is not at its end: stop it with %s and wait, or start %s if none runs, which brings it to its end; --force stops the lab all the same",
			id, a.command("abort "+id), a.command("up"))
	}
	return nil
}

func (a *app) labRelayCmd() *cobra.Command {
	return &cobra.Command{
		Use: "relay FILE", Short: "Serve a lab's TCP relays", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := a.log()
			if err != nil {
				return err
			}
			return failure(relay.ServeFile(cmd.Context(), args[0], log))
		},
	}
}

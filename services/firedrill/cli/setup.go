package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/keys"
)

func (a *app) keysCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "keys",
		Short: "Create the services' signing keys, or show the public ones",
		Long: `Create a signing key for each service (<service>.nk, for that service alone) and
keyring.json, the public keys that every service and auditor needs. Existing
keys are kept.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ring, err := keys.LoadOrCreate(dir)
			if err != nil {
				return failure(err)
			}
			return writeJSON(a.Out, ring.Keyring)
		},
	}
	c.Flags().StringVar(&dir, "dir", "keys", "folder of the keys")
	return c
}

func (a *app) bootstrapCmd() *cobra.Command {
	replicas := 1
	c := &cobra.Command{
		Use:   "bootstrap",
		Short: "Create the streams and consumers on a NATS cluster",
		Long:  "Create firedrill's streams and consumers, with the identity that alone may. `firedrill up` does this by itself.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.nats.URL == "" {
				return fmt.Errorf("--nats-url: name the NATS servers")
			}
			log, err := a.log()
			if err != nil {
				return err
			}
			o := a.nats
			o.Log, o.Identity = log, bus.Identity{Service: "bootstrap", Instance: "bootstrap", Clock: clock.System()}
			b, err := bus.Connect(cmd.Context(), o)
			if err != nil {
				return failure(err)
			}
			defer b.Close()
			if err := b.Bootstrap(cmd.Context(), bus.BootstrapOptions{Replicas: replicas}); err != nil {
				return failure(err)
			}
			fmt.Fprintln(a.Out, "streams and consumers are in place")
			return nil
		},
	}
	c.Flags().IntVar(&replicas, "replicas", 1, "copies of each stream: 3 on a cluster")
	return c
}

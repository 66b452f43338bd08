package validator

import (
	"context"

	"github.com/firedrill/firedrill/pkg/event"
)

// Say says a step's baseline; look is called between the look and the append.
func Say(ctx context.Context, c Config, id, step string, look func(), d event.Draft) error {
	return c.say(ctx, id, func(v view) bool {
		look()
		return v.baselines[step] != nil
	}, d)
}

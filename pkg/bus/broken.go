package bus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// healthPause is the time between two looks at an embedded server's store.
const healthPause = time.Second

// StoreBroken says that the store of an embedded server takes nothing more, as when its
// disk is full. Room that is made later does not change that: the server has to start anew.
type StoreBroken struct {
	// Dir is the store's directory; Problem what the server says.
	Dir, Problem string
}

// Error says what to do.
func (e *StoreBroken) Error() string {
	return fmt.Sprintf("the event store in %s takes no more events (%s): nothing can be decided or put back until you make room there, or mend its disk or the permissions, and start `firedrill up` with the same --state-dir: that goes on with every drill", e.Dir, e.Problem)
}

// Watch returns a *StoreBroken once the store takes no more, and nil when ctx has ended.
func (e *Embedded) Watch(ctx context.Context) error {
	tick := time.NewTicker(healthPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if problem := e.broken(); problem != "" && ctx.Err() == nil {
			return &StoreBroken{Dir: e.server.StoreDir(), Problem: problem}
		}
	}
}

// broken is what keeps the server's store from taking anything until the server starts
// anew; "" if there is nothing. Other ills, as of a cluster that has no leader, may pass. In
// a cluster the server says nothing of streams without replicas; it shuts JetStream down.
func (e *Embedded) broken() string {
	if !e.server.JetStreamEnabled() {
		return "JetStream has shut down; the log above has the reason"
	}
	for _, one := range e.server.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if _, problem, ok := strings.Cut(one.Error, " write error: "); ok && one.Type == server.HealthzErrorStream {
			return problem
		}
	}
	return ""
}

package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

const defaultMaxLag = 16 << 20

// checkReplication gives replication a moment to settle, since a standby that
// comes back is not there at once, and then says what is the case.
func (s *servers) checkReplication(ctx context.Context, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	settle := time.Duration(p.SettleSeconds) * time.Second
	if settle == 0 {
		settle = 10 * time.Second
	}
	var props []event.Property
	var last error
	// A look that has begun has its own time: cut short by what is left to settle, it would
	// say less than the one before, or nothing at all.
	_ = target.Poll(ctx, settle, 100*time.Millisecond, "replication", func(context.Context) (bool, string, error) {
		look, cancel := context.WithTimeout(ctx, adminTimeout)
		defer cancel()
		got, err := s.replication1(look, p)
		if err != nil && props != nil {
			return false, "", nil // the look before says more
		}
		props, last = got, err
		for _, q := range props {
			if q.Result == event.ResultFail {
				return false, q.Found, nil
			}
		}
		return last == nil, "", nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return props, last
}

func (s *servers) replication1(ctx context.Context, p checkParams) ([]event.Property, error) {
	now, views, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.exec(ctx, now.node, `SELECT application_name, state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	var props []event.Property
	for _, v := range views {
		if v.node == now.node {
			continue
		}
		found := v.role()
		if v.Streaming {
			found = fmt.Sprintf("streaming timeline %d", v.Timeline)
		}
		props = append(props, target.Judge("standby "+v.node.Name, v.Streaming && v.Timeline == now.Timeline, found, fmt.Sprintf("streaming timeline %d", now.Timeline)))
	}
	limit := p.MaxLagBytes
	if limit == 0 {
		limit = defaultMaxLag
	}
	for _, r := range rows {
		name, state, sync := r[0], r[1], r[2]
		if state == "backup" {
			continue
		}
		lag, err := strconv.ParseInt(r[3], 10, 64)
		if err != nil {
			props = append(props, undecided("lag of "+name, "not known yet", fmt.Sprintf("at most %d bytes", limit)))
			continue
		}
		props = append(props, target.Judge("lag of "+name, lag <= limit, fmt.Sprintf("%d bytes, %s", lag, state), fmt.Sprintf("at most %d bytes", limit)))
		if p.SyncState != "" {
			props = append(props, target.Judge("sync state of "+name, sync == p.SyncState, sync, p.SyncState))
		}
	}
	if len(rows) == 0 {
		props = append(props, target.Judge("senders", false, "the primary sends to nobody", "a sender for each standby"))
	}
	return props, nil
}

func (s *servers) checkHome(ctx context.Context, _ checkParams, _ json.RawMessage) ([]event.Property, error) {
	views, err := s.look(ctx, lookLimit)
	if err != nil {
		return nil, err
	}
	home := s.home()
	var props []event.Property
	for _, v := range views {
		want := v.node.Role
		props = append(props, target.Judge("node "+v.node.Name, v.Answers && v.role() == want, v.role(), want))
	}
	name := "an unknown server"
	n := s.serving(ctx, views)
	if n != nil {
		name = "node " + n.Name
	}
	props = append(props, target.Judge("endpoint", n == home, "leads to "+name, "leads to node "+home.Name))
	if why := s.away(ctx, views, home); len(why) > 0 {
		props = append(props, target.Judge("home topology", false, strings.Join(why, "; "), "every node in its home role, the standbys streaming"))
	}
	return props, nil
}

package engine

import "context"

// Local is the pool of one worker in this process.
type Local struct {
	Worker *Worker
	// Items is how many items it carries out at once; 0 means DefaultItems.
	Items int
	// SplitAbove is the size in bytes above which the parts of a file are items of
	// their own; 0 means DefaultSplit.
	SplitAbove int64
}

// DefaultItems is how many items a process carries out at once. A batch of small
// files may need 8 MiB of memory, so that more would not fit into what a worker
// may use.
const DefaultItems = 4

// Do implements Pool.
func (l Local) Do(ctx context.Context, it Item) ([]Done, error) { return l.Worker.Do(ctx, it) }

// Width implements Pool.
func (l Local) Width() int {
	if l.Items > 0 {
		return l.Items
	}
	return DefaultItems
}

// Split implements Pool.
func (l Local) Split() int64 { return l.SplitAbove }

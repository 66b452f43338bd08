package bucket

import (
	"context"
	"strings"
)

// Children is what lies directly in one directory.
type Children struct {
	// Objects are those in it.
	Objects []Object
	// Dirs are the directories in it, ending with '/', in which there is something or,
	// in a bucket with versions, was.
	Dirs []string
	// All says that there is no more than this.
	All bool
}

// Children lists up to a thousand of what has keys that begin with a prefix, as one
// directory shows it: what lies deeper is told by its directory alone. Other than a
// listing that begins after a key it ends where it should. It is one request, and
// costs the server little however much lies below.
func (b *Bucket) Children(ctx context.Context, prefix string) (Children, error) {
	q := pageRequest{prefix: b.prefix + prefix, flat: true, max: 1000}
	var p page
	err := b.do(ctx, "list", prefix, repeatable, func(ctx context.Context, _ *exchange) error { return b.fetchPage(ctx, q, &p) })
	if err != nil {
		return Children{}, err
	}
	c := Children{Objects: p.objects, Dirs: p.dirs, All: !p.truncated}
	for i := range c.Objects {
		c.Objects[i].Key = strings.TrimPrefix(c.Objects[i].Key, b.prefix)
	}
	for i := range c.Dirs {
		c.Dirs[i] = strings.TrimPrefix(c.Dirs[i], b.prefix)
	}
	return c, nil
}

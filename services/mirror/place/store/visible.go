package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// MinIO lists nothing below a key that is an object, or, in a bucket with versions,
// that ever was one and still has versions. It takes the writes all the same. Three
// looks keep the mirror from writing what nobody will see, or hiding what is there.

// visible are directories below which something was seen in a listing, so that
// nothing hides what is written there. The zero value knows none.
type visible struct {
	mu   sync.Mutex
	dirs map[string]bool
}

// maxVisible bounds the memory of visible: beyond it, it begins anew.
const maxVisible = 20_000

// has reports whether the directory of a key is visible.
func (v *visible) has(key string) bool {
	dir := bucket.Parent(key)
	if dir == "" {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dirs[dir]
}

// saw notes that a key was listed.
func (v *visible) saw(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.dirs) > maxVisible {
		v.dirs = nil
	}
	if v.dirs == nil {
		v.dirs = map[string]bool{}
	}
	for dir := bucket.Parent(key); dir != "" && !v.dirs[dir]; dir = bucket.Parent(dir) {
		v.dirs[dir] = true
	}
}

// forget notes that a key becomes an object: what is below it is not visible.
func (v *visible) forget(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// With each directory all above it are known.
	if v.dirs[key+"/"] {
		v.dirs = nil
	}
}

// first is the first key that begins with a prefix; "" if there is none.
func (p *Place) first(ctx context.Context, prefix string) (bucket.Object, error) {
	for o, err := range p.b.List(ctx, bucket.ListOptions{Prefix: prefix, PageSize: 1}) {
		return o, err
	}
	return bucket.Object{}, nil
}

// nothingBelow makes sure that a new object does not hide a directory.
func (p *Place) nothingBelow(ctx context.Context, key string) error {
	if p.traits.Both {
		return nil
	}
	p.visible.forget(key)
	if p.o.Exclusive {
		return nil
	}
	below, err := p.first(ctx, key+"/")
	if err != nil {
		return err
	}
	if below.Key != "" {
		return p.changed("put", key, fmt.Sprintf("there is %q, which it would hide", below.Key))
	}
	return nil
}

// noFile makes sure that there is no object in whose place a directory is made.
func (p *Place) noFile(ctx context.Context, dir string) error {
	if p.traits.Both || p.o.Exclusive || p.visible.has(dir+"x") {
		return nil
	}
	key := strings.TrimSuffix(dir, "/")
	o, err := p.first(ctx, key)
	if err == nil && o.Key == key {
		err = p.changed("make the directory", dir, "there is an object of its name")
	}
	return err
}

// checkVisible looks above a key that was written for the first one of a directory,
// and takes the object back if nobody would see it.
func (p *Place) checkVisible(ctx context.Context, key, version string) error {
	by, err := p.obstacle(ctx, key)
	if err != nil || by == "" {
		return err
	}
	return errors.Join(p.hidden(key, by), p.takeBack(ctx, key, version))
}

// obstacle names the object that would hide a key; "" if there is none.
func (p *Place) obstacle(ctx context.Context, key string) (by string, err error) {
	if p.traits.Both || p.visible.has(key) {
		return "", nil
	}
	by, err = p.b.Obstacle(ctx, key, func(dir string) bool { return p.visible.has(dir + "x") })
	if err != nil {
		return "", fmt.Errorf("look for what would hide %q: %w", key, explain(err))
	}
	if by == "" {
		p.visible.saw(key)
		return "", nil
	}
	return strconv.Quote(by), nil
}

// hidden says that an object would not be listed because of another one.
func (p *Place) hidden(key, by string) error {
	advice := "delete the object " + by
	if p.caps.Versioning {
		advice += ", with all its versions"
	}
	return fmt.Errorf("put %q into %s: %w; %s", key, p, bucket.ErrHidden, advice)
}

// patience is how long something is taken back although the caller gave up.
const patience = 10 * time.Second

// takeBack removes what was just written and should not have been.
func (p *Place) takeBack(ctx context.Context, key, version string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if version != "" {
		return p.b.DeleteVersion(ctx, key, version)
	}
	return p.b.Delete(ctx, []string{key})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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
	dir := parent(key)
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
	for dir := parent(key); dir != "" && !v.dirs[dir]; dir = parent(dir) {
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

// parent is the key of the directory that a key lies in; "" if in none.
func parent(key string) string {
	return key[:strings.LastIndexByte(strings.TrimSuffix(key, "/"), '/')+1]
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

// checkVisible looks for a key that was written for the first one of a directory,
// and takes the object back if nobody would see it.
func (p *Place) checkVisible(ctx context.Context, key, version string) error {
	if p.traits.Both || p.visible.has(key) {
		return nil
	}
	listed, err := p.isListed(ctx, key)
	if err != nil {
		return fmt.Errorf("look for what was put: %w", err)
	}
	if listed {
		p.visible.saw(key)
		return nil
	}
	// It may be gone again already.
	if _, err := p.b.Stat(ctx, key); err != nil {
		return explain(err)
	}
	return errors.Join(p.hidden(key), p.takeBack(ctx, key, version))
}

// isListed reports whether a listing of everything shows a key. One of its
// directory does not tell: MinIO lists that without a look at what is above it.
func (p *Place) isListed(ctx context.Context, key string) (bool, error) {
	for o, err := range p.b.List(ctx, bucket.ListOptions{After: justBefore(key), PageSize: 1}) {
		if err != nil || o.Key >= key {
			return o.Key == key, err
		}
	}
	return false, nil
}

// justBefore is a key before another with hardly any between them.
func justBefore(key string) string {
	last, size := utf8.DecodeLastRuneInString(key)
	before := key[:len(key)-size]
	if last <= ' ' || last > 0xd7ff {
		return before
	}
	return before + string(last-1) + "\U0010fffd"
}

// hidden says that an object would not be listed.
func (p *Place) hidden(key string) error {
	advice := "delete the object that has the name of one of its directories"
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

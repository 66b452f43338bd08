package bucket

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// MinIO finds what it lists by one walk, on one processor. Directories are walked beside
// each other where each is asked for by its own prefix; keys that begin alike stand
// together, so that the order of the whole is that of the directories. A directory that
// fits a page also ends where it should, which the last page of a longer listing may not
// (see goOn).
//
// It takes more requests, a thousand at most where many directories turn out to be small.
// So it is not done on servers whose requests are paid for.

const (
	// dirsAtOnce is how many directories are listed at once.
	dirsAtOnce = 8
	// dirsInPage is in how many directories, at most, the first thousand keys may lie
	// for a listing by directories.
	dirsInPage = 25
)

// split gives the directories that what comes after the first page of a listing lies
// in, if it should be listed by them, in one page with what lies beside them.
func (l *lister) split(o ListOptions, first *page) *page {
	if l.caps.Server != MinIO || first.err != nil || !first.truncated || o.After != "" || o.PageSize != 0 {
		return nil
	}
	for prefix := l.prefix + o.Prefix; ; {
		// A thousand objects in no directory leave no room in a page beside them, and many
		// small directories would take as many requests.
		if n := dirsOf(first, prefix); n == 0 || n > dirsInPage {
			return nil
		}
		q := pageRequest{prefix: prefix, meta: o.Metadata, flat: true, max: 1000}
		flat := new(page)
		err := l.do(l.ctx, "list", o.Prefix, repeatable, func(ctx context.Context, _ *exchange) error { return l.fetchPage(ctx, q, flat) })
		if err != nil || flat.truncated || !flat.shows(prefix, first.last) {
			return nil // The listing of all will say what is wrong.
		}
		if len(flat.dirs) != 1 || len(flat.objects) > 0 || flat.dirs[0] == l.without {
			return flat
		}
		prefix = flat.dirs[0]
	}
}

// dirsOf counts the directories directly below a prefix in which a page has keys.
func dirsOf(p *page, prefix string) int {
	n, last := 0, ""
	for _, o := range p.objects {
		if !strings.HasPrefix(o.Key, prefix) {
			continue
		}
		if last != "" && strings.HasPrefix(o.Key, last) {
			continue
		}
		dir, _, deeper := strings.Cut(o.Key[len(prefix):], "/")
		if last = ""; deeper {
			last = prefix + dir + "/"
			n++
		}
	}
	return n
}

// shows reports whether a flat page is one of what lies directly below a prefix, each thing
// once, and has the place in it of a key that is known to be there.
func (p *page) shows(prefix, key string) bool {
	direct := func(name string) bool {
		return len(name) > len(prefix) && !strings.Contains(strings.TrimSuffix(name[len(prefix):], "/"), "/")
	}
	has := false
	for _, dir := range p.dirs {
		if !direct(dir) {
			return false
		}
		has = has || strings.HasPrefix(key, dir)
	}
	for _, o := range p.objects {
		if _, twice := slices.BinarySearch(p.dirs, o.Key); twice || o.Key != prefix && !direct(o.Key) {
			return false
		}
		has = has || o.Key == key
	}
	return has
}

// section is a part of a listing by directories: a directory, or an object beside them.
type section struct {
	object Object
	dir    string
	fetching
	// slot is the room that a directory is listed in.
	slot *slot
}

// slot is room for the listing of a directory: one page that is used, one that is
// fetched.
type slot [2]page

// listDirs yields the first page of a listing, and the rest directory by directory; whole is
// the listing, of which only that page was asked for. Credentials that may list it need not
// be allowed to list each directory by itself: where one is refused, whole goes on.
func (l *lister) listDirs(o ListOptions, whole fetching, first, flat *page) {
	slots, sections := make(chan *slot, dirsAtOnce), make(chan section, dirsAtOnce)
	for range dirsAtOnce {
		slots <- new(slot)
	}
	l.fetchers.Go(func() {
		defer close(sections)
		l.begin(o, first.last, flat, slots, sections)
	})
	if _, there := slices.BinarySearch(flat.dirs, l.without); there {
		l.pass()
	}
	if !l.show(first, "") {
		return
	}
	for s := range sections {
		if s.dir == "" {
			l.last = s.object.Key
			s.object.Key = s.object.Key[len(l.prefix):]
			if !l.yield(s.object, nil) {
				return
			}
			continue
		}
		begun, ok := <-s.ready
		switch {
		case !ok:
			l.cancelled(s.dir)
			return
		case errors.Is(begun.err, ErrDenied):
			after := max(l.last, first.last) // Whoever fetches has the page from then on.
			whole.used <- first
			whole.used <- new(page)
			l.drain(whole, o.Prefix, after)
			return
		case !l.show(begun, first.last):
			return
		case begun.truncated:
			s.used <- begun
			if !l.drain(s.fetching, s.dir, first.last) {
				return
			}
		}
		slots <- s.slot
	}
	if l.ctx.Err() != nil {
		l.cancelled(o.Prefix)
	}
}

// begin begins the sections that hold anything after a key, in order, as slots come free.
func (l *lister) begin(o ListOptions, after string, flat *page, slots <-chan *slot, sections chan<- section) {
	send := func(s section) bool {
		select {
		case sections <- s:
			return true
		case <-l.ctx.Done():
			return false
		}
	}
	objects := flat.objects
	beside := func(before string) bool {
		for len(objects) > 0 && (before == "" || objects[0].Key < before) {
			if objects[0].Key > after && !send(section{object: objects[0]}) {
				return false
			}
			objects = objects[1:]
		}
		return true
	}
	for _, dir := range flat.dirs {
		if !beside(dir) {
			return
		}
		if dir < after && !strings.HasPrefix(after, dir) {
			continue
		}
		if dir == l.without {
			continue
		}
		s := section{dir: dir[len(l.prefix):]}
		select {
		case s.slot = <-slots:
		case <-l.ctx.Done():
			return
		}
		s.fetching = l.fetch(ListOptions{Prefix: s.dir, Metadata: o.Metadata}, &s.slot[0], &s.slot[1])
		if !send(s) {
			return
		}
	}
	beside("")
}

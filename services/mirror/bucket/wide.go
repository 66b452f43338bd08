package bucket

import (
	"context"
	"strings"
)

// A server finds what it lists by one walk, on one processor. Directories are walked
// beside each other where each is asked for by its own prefix; keys that begin alike
// stand together, so that the order of the whole is that of the directories.
//
// It also asks for more pages than one listing of all would, which stop where the
// directory ends, and never where MinIO might end too early (see goOn). That pays on
// MinIO; where requests are paid for it is not done unless they are as many.

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
	if first.err != nil || !first.truncated || o.After != "" || o.PageSize != 0 {
		return nil
	}
	most := 1
	if l.caps.Server == minIO {
		most = dirsInPage
	}
	for prefix := l.prefix + o.Prefix; ; {
		if dirsOf(first, prefix) > most {
			return nil
		}
		q := pageRequest{prefix: prefix, meta: o.Metadata, flat: true, max: 1000}
		flat := new(page)
		err := l.do(l.ctx, "list", o.Prefix, repeatable, func(ctx context.Context, _ *exchange) error { return l.fetchPage(ctx, q, flat) })
		if err != nil || flat.truncated || !direct(flat, prefix) {
			return nil // The listing of all will say what is wrong.
		}
		if len(flat.dirs) != 1 || len(flat.objects) > 0 {
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

// direct reports whether the directories of a flat page lie directly below a prefix.
func direct(p *page, prefix string) bool {
	for _, dir := range p.dirs {
		if strings.Contains(strings.TrimSuffix(dir[len(prefix):], "/"), "/") {
			return false
		}
	}
	return true
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

// listDirs yields the first page of a listing, and the rest directory by directory.
func (l *lister) listDirs(o ListOptions, first, flat *page) {
	slots, sections := make(chan *slot, dirsAtOnce), make(chan section, dirsAtOnce)
	for range dirsAtOnce {
		slots <- new(slot)
	}
	l.fetchers.Go(func() {
		defer close(sections)
		l.begin(o, first.last, flat, slots, sections)
	})
	if !l.show(first, "") {
		return
	}
	for s := range sections {
		if s.dir == "" {
			s.object.Key = s.object.Key[len(l.prefix):]
			if !l.yield(s.object, nil) {
				return
			}
			continue
		}
		if !l.drain(s.fetching, s.dir, first.last) {
			return
		}
		slots <- s.slot
	}
	if l.ctx.Err() != nil {
		l.ended(o.Prefix)
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

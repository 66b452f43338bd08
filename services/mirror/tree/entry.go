// Package tree copies directory trees and proves that the copy is whole.
//
// A copy is a series of passes: walk the source, copy what is new or has changed
// since it was read, and walk again, until a walk finds nothing more to do. Then
// the copy is read back in full and compared with the manifest. Nothing is ever
// deleted from the destination but what the same run wrote there.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Types of entries.
const (
	TypeFile    = "file"
	TypeDir     = "dir"
	TypeSymlink = "symlink"
	// TypeSocket is listed in the manifest and not copied: it holds no data.
	TypeSocket = "socket"
)

// Entry is one line of a manifest.
type Entry struct {
	// Path is relative to the tree's root, with slashes; "." is the root itself.
	Path string `json:"path"`
	// Raw is the path's bytes in base64, for a name that is not UTF-8; Path is
	// then only for people.
	Raw   []byte `json:"path_raw,omitempty"`
	Type  string `json:"type"`
	Size  int64  `json:"size"`
	Mode  uint32 `json:"mode"` // the permission bits with setuid, setgid and sticky, as in chmod(2)
	MTime int64  `json:"mtime_ns"`
	// Blake3 is the hex hash of a file's content.
	Blake3 string `json:"blake3,omitempty"`
	// Target is where a symbolic link points.
	Target    string `json:"target,omitempty"`
	TargetRaw []byte `json:"target_raw,omitempty"`
}

// identity is what changes when a file is touched in any way.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64
	mode         fs.FileMode
	uid, gid     uint32
}

// node is an entry as it was found.
type node struct {
	path string
	kind string
	id   identity
}

func identityOf(fi fs.FileInfo) (identity, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, fmt.Errorf("stat %s: this system tells no inode", fi.Name())
	}
	return identity{
		dev: st.Dev, ino: st.Ino, size: st.Size,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
		mode: fi.Mode(), uid: st.Uid, gid: st.Gid,
	}, nil
}

// same reports whether nothing happened to a node between two looks. A
// directory's size and times follow from its entries, which are compared
// themselves; its mtime counts because it is copied.
func (n node) same(o node) bool {
	if n.kind == TypeDir && o.kind == TypeDir {
		return n.id.ino == o.id.ino && n.id.dev == o.id.dev && n.id.mode == o.id.mode &&
			n.id.mtime == o.id.mtime && n.id.uid == o.id.uid && n.id.gid == o.id.gid
	}
	return n.kind == o.kind && n.id == o.id
}

func kindOf(m fs.FileMode) (string, bool) {
	switch m.Type() {
	case 0:
		return TypeFile, true
	case fs.ModeDir:
		return TypeDir, true
	case fs.ModeSymlink:
		return TypeSymlink, true
	case fs.ModeSocket:
		return TypeSocket, true
	}
	return m.Type().String(), false
}

// unixMode is a mode as chmod(2) takes it.
func unixMode(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	for bit, flag := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			out |= flag
		}
	}
	return out
}

// walk lists a tree, sorted by path, the root first. Entries that vanish while
// it looks are left out: the next walk tells. Special files are returned apart.
func walk(root *os.Root) (nodes []node, special []string, err error) {
	var dir func(p string) error
	dir = func(p string) error {
		f, err := root.Open(p)
		if errors.Is(err, fs.ErrNotExist) && p != "." {
			return nil
		}
		if err != nil {
			return err
		}
		names, err := f.Readdirnames(-1)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			child := path.Join(p, name)
			fi, err := root.Lstat(child)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			kind, ok := kindOf(fi.Mode())
			if !ok {
				special = append(special, child)
				continue
			}
			id, err := identityOf(fi)
			if err != nil {
				return err
			}
			nodes = append(nodes, node{path: child, kind: kind, id: id})
			if kind == TypeDir {
				if err := dir(child); err != nil {
					return err
				}
			}
		}
		return nil
	}
	fi, err := root.Lstat(".")
	if err != nil {
		return nil, nil, err
	}
	id, err := identityOf(fi)
	if err != nil {
		return nil, nil, err
	}
	nodes = append(nodes, node{path: ".", kind: TypeDir, id: id})
	if err := dir("."); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(nodes[1:], func(a, b node) int { return strings.Compare(a.path, b.path) })
	return nodes, special, nil
}

func mtimeOf(id identity) time.Time { return time.Unix(0, id.mtime) }

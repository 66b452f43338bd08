package entry

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// How names become keys.
//
// A key is a path whose components were escaped one by one, so that a directory
// and a bucket agree on the order. Nearly every name is its own escape. A byte
// that a key cannot hold is written as '%' and two upper-case hex digits:
//
//   - control characters, what is not UTF-8, and U+FFFE and U+FFFF, which the XML
//     of a listing cannot hold
//   - '\', which MinIO and others take for a '/'
//   - the dots of a name that is "." or ".." but for white space around it, which
//     MinIO refuses
//   - the first byte of a final "__XLDIR__", which MinIO lists as "/"
//   - a '%' that would otherwise read as one of these escapes; "%20" does not
//
// A bucket that others write to holds segments that no name escapes to: empty
// ones, "..", a bare control character, needless escapes. Such a segment is
// foreign: in a directory it is called "%{segment}", and that name, and only that
// one, becomes the segment again. So both directions are exact: no two paths
// share a key and no two keys share a path.

// What S3 and MinIO hold at most.
const (
	maxKey     = 1024
	maxSegment = 255
	// dirMark is what MinIO appends to the last segment of a key that ends in '/',
	// in place of the '/'.
	dirMark = "__XLDIR__"
)

// maxName is the longest name that Linux file systems hold.
const maxName = 255

// ErrName is what every [*NameError] is.
var ErrName = errors.New("the name cannot be held on the other side")

// NameError says that a path has no key, or a key no path.
type NameError struct {
	// Name is the path or the key, raw.
	Name string
	// Reason says why, and where something can be done about it, what.
	Reason string
}

// Error quotes the name, so that no control character reaches a terminal.
func (e *NameError) Error() string { return fmt.Sprintf("name %q: %s", e.Name, e.Reason) }

// Unwrap makes it an [ErrName].
func (e *NameError) Unwrap() error { return ErrName }

// EscapePath gives the key of anything but a directory; a directory's is
// [Entry.Key]. [UnescapeKey] gives back exactly the same bytes. The key is valid
// UTF-8, and MinIO takes it, unless the path was made from a foreign key that
// MinIO would not have taken either; one of nothing but spaces it takes only below
// a prefix. The error is a [*NameError]: the path is not relative and clean, or
// its key exceeds what S3 (1,024 bytes) or MinIO (255 bytes between slashes)
// holds.
func EscapePath(path string) (key string, err error) {
	if path == "" {
		return "", nil
	}
	if err := checkPath(path); err != nil {
		return "", err
	}
	key = escape(path, false)
	if err := checkKey(path, key); err != nil {
		return "", err
	}
	return key, nil
}

// checkPath tells whether the path is relative and clean.
func checkPath(path string) error {
	for name := range strings.SplitSeq(path, "/") {
		if !validName(name) {
			return &NameError{path, fmt.Sprintf("%q is no name of a file: a path is relative, with neither '.' nor '..' nor an empty component", name)}
		}
	}
	return nil
}

// checkKey tells whether the key of a path can be held. A directory's ends in '/'.
func checkKey(path, key string) error {
	if len(key) > maxKey {
		return &NameError{path, fmt.Sprintf("its key has %d bytes and S3 holds %d: rename it or move it up", len(key), maxKey)}
	}
	body, dir := strings.CutSuffix(key, "/")
	for rest, more := body, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		most := maxSegment
		if dir && !more {
			most -= len(dirMark)
		}
		if len(segment) > most {
			return &NameError{path, fmt.Sprintf("the component %q has %d bytes and MinIO holds %d there: rename it", segment, len(segment), most)}
		}
	}
	return nil
}

// UnescapeKey gives the path that a key stands for and whether it is that of a
// directory. Keys that others wrote have paths too, and [EscapePath] gives back
// the same key. The error is a [*NameError]: the key is longer than S3's 1,024
// bytes or not UTF-8, or a segment is too long for the name of a file.
func UnescapeKey(key string) (path string, dir bool, err error) {
	if key == "" {
		return "", true, nil
	}
	if len(key) > maxKey {
		return "", false, &NameError{key, fmt.Sprintf("the key has %d bytes and S3 holds %d", len(key), maxKey)}
	}
	if !utf8.ValidString(key) {
		return "", false, &NameError{key, "the key is not UTF-8"}
	}
	body, dir := strings.CutSuffix(key, "/")
	if len(body) <= maxName && checkPath(body) == nil && plainPath(body) {
		return body, dir, nil // as of nearly all
	}
	var b strings.Builder
	b.Grow(len(body))
	for rest, more := body, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		name := unescapeSegment(segment, dir || more)
		if len(name) > maxName {
			return "", false, &NameError{key, fmt.Sprintf("a segment makes a name of %d bytes and file systems hold %d", len(name), maxName)}
		}
		// A name is never empty, so only the first segment finds nothing before it.
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(name)
	}
	return b.String(), dir, nil
}

// Quote gives a key as people are told of it: as the path that it stands for, which is what the
// name is in a directory, in double quotes and without control characters. A directory's ends
// in '/'. What stands for no path is quoted as it is.
func Quote(key string) string {
	path, dir, err := UnescapeKey(key)
	if err != nil || key == "./" { // which stands for the root
		return strconv.Quote(key)
	}
	if dir {
		path += "/"
	}
	return strconv.Quote(path)
}

// Fold gives the key as a file system that normalises names to NFC would see it.
// Two keys with the same fold are one file there.
func Fold(key string) string { return norm.NFC.String(key) }

// EscapeName gives the segment of a key that one name becomes; dir says that a
// '/' follows it. It is total, and the inverse of what [UnescapeKey] does to each
// segment.
func EscapeName(name string, dir bool) string {
	if plain(name) {
		return name
	}
	if segment, ok := foreignSegment(name, dir); ok {
		return segment
	}
	return encode(name)
}

// escape escapes each component of a path; dir says that it is a directory's.
func escape(path string, dir bool) string {
	if plainPath(path) {
		return path
	}
	first, rest, more := strings.Cut(path, "/")
	key := []byte(EscapeName(first, more || dir))
	for more {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		key = append(key, '/')
		key = append(key, EscapeName(name, more || dir)...)
	}
	return string(key)
}

// unescapeSegment gives the name of a segment, which is valid UTF-8 and has no
// '/'.
func unescapeSegment(segment string, dir bool) string {
	if name := decode(segment); canonical(segment, name, dir) {
		return name
	}
	return foreignName(segment)
}

// canonical reports whether segment is what name, which it decodes to, escapes
// to. All other segments are foreign.
func canonical(segment, name string, dir bool) bool {
	if !validName(name) || encode(name) != segment {
		return false
	}
	_, taken := foreignSegment(name, dir)
	return !taken
}

const foreignOpen, foreignClose = "%{", "}"

// foreignName is what a foreign segment is called in a directory. No name holds
// a NUL.
func foreignName(segment string) string {
	return foreignOpen + strings.ReplaceAll(strings.ReplaceAll(segment, "%", "%25"), "\x00", "%00") + foreignClose
}

// foreignSegment is the inverse of [foreignName], for names that it may give. The
// last segment of a key is empty only before a directory's '/'.
func foreignSegment(name string, dir bool) (string, bool) {
	if len(name) < len(foreignOpen)+len(foreignClose) || !strings.HasPrefix(name, foreignOpen) || !strings.HasSuffix(name, foreignClose) {
		return "", false
	}
	inner := name[len(foreignOpen) : len(name)-len(foreignClose)]
	segment := strings.ReplaceAll(strings.ReplaceAll(inner, "%00", "\x00"), "%25", "%")
	if !utf8.ValidString(segment) || strings.Contains(segment, "/") || foreignName(segment) != name {
		return "", false
	}
	return segment, (segment != "" || dir) && !canonical(segment, decode(segment), dir)
}

// validName reports whether a file can have the name.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

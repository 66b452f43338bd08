package entry

import (
	"strings"
	"unicode/utf8"
)

const hexDigits = "0123456789ABCDEF"

// plain reports, fast, that a name is its own escape. It may be wrong about
// names that are, too.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c >= 0x7f || c == '%' || c == '\\' {
			return false
		}
	}
	from, to := shunned(name)
	return from == to
}

// plainPath is [plain] for each component of a path.
func plainPath(path string) bool {
	for name := range strings.SplitSeq(path, "/") {
		if !plain(name) {
			return false
		}
	}
	return true
}

// shunned is the range of bytes that are escaped although other names may hold
// them.
func shunned(name string) (from, to int) {
	if strings.HasSuffix(name, dirMark) {
		from = len(name) - len(dirMark)
		return from, from + 1
	}
	from, to = 0, len(name)
	for from < to && blank(name[from]) {
		from++
	}
	for from < to && blank(name[to-1]) {
		to--
	}
	if core := name[from:to]; core == "." || core == ".." {
		return from, to
	}
	return 0, 0
}

func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// encode escapes the bytes of a name that a key cannot hold. It is injective:
// decode(encode(name)) == name.
func encode(name string) string {
	from, to := shunned(name)
	var b strings.Builder
	kept := 0
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && size == 1 || forbidden(r) || i >= from && i < to ||
			r == '%' && isEscape(name[i:]) {
			b.WriteString(name[kept:i])
			for _, c := range []byte(name[i : i+size]) {
				b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
			}
			kept = i + size
		}
		i += size
	}
	if kept == 0 {
		return name
	}
	b.WriteString(name[kept:])
	return b.String()
}

// decode replaces each escape by the byte it stands for.
func decode(segment string) string {
	i := strings.IndexByte(segment, '%')
	if i < 0 {
		return segment
	}
	var b strings.Builder
	b.Grow(len(segment))
	for ; i >= 0; i = strings.IndexByte(segment, '%') {
		b.WriteString(segment[:i])
		segment = segment[i:]
		if isEscape(segment) {
			b.WriteByte(unhex(segment[1])<<4 | unhex(segment[2]))
			segment = segment[3:]
		} else {
			b.WriteByte('%')
			segment = segment[1:]
		}
	}
	b.WriteString(segment)
	return b.String()
}

// forbidden reports whether no key holds the character.
func forbidden(r rune) bool {
	return r < 0x20 || r >= 0x7f && r <= 0x9f || r == '\\' || r == 0xfffe || r == 0xffff
}

// isEscape reports whether s begins with an escape that [encode] may write. What
// it never writes, such as "%20", is text; so is "%25", unless what follows would
// be an escape without it.
func isEscape(s string) bool {
	if s[0] != '%' {
		return false
	}
	s = s[1:]
	for strings.HasPrefix(s, "25") {
		s = s[2:]
	}
	if len(s) < 2 || !isHex(s[0]) || !isHex(s[1]) {
		return false
	}
	switch c := unhex(s[0])<<4 | unhex(s[1]); c {
	case 0:
		return false
	case '.', '\\', dirMark[0]:
		return true
	default:
		return c < 0x20 || c >= 0x7f
	}
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}

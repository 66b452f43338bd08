package bucket

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// maxKey is how many bytes S3 takes for a key.
const maxKey = 1024

// metaPrefix is what the headers of user metadata begin with.
const metaPrefix = "X-Amz-Meta-"

// CheckKey reports why no object can have the key: it is empty or blank, too long
// with the bucket's prefix, or no UTF-8. The error wraps ErrKey.
func (b *Bucket) CheckKey(key string) error {
	_, err := b.full(key)
	return err
}

// full is the key that the server sees.
func (b *Bucket) full(key string) (string, error) {
	full := b.prefix + key
	switch {
	case strings.TrimSpace(full) == "":
		// minio-go and MinIO trim it before they look, Unicode's spaces too.
		return "", fmt.Errorf("%w: it is empty, or nothing but spaces", ErrKey)
	case len(full) > maxKey:
		return "", fmt.Errorf("%w: it has %d bytes with its prefix, and S3 takes %d", ErrKey, len(full), maxKey)
	case !utf8.ValidString(full) || strings.IndexByte(full, 0) >= 0:
		return "", fmt.Errorf("%w: S3 takes UTF-8 without NUL", ErrKey)
	}
	return full, nil
}

// isClean reports that a path has no empty, "." or ".." component and no '/' at
// its start: servers that clean paths leave it as it is.
func isClean(key string) bool {
	bare := strings.TrimSuffix(key, "/")
	return bare != "" && bare[0] != '/' && path.Clean(bare) == bare && bare != "." && bare != ".." && !strings.HasPrefix(bare, "../")
}

// checkMeta reports metadata that would arrive changed, or not at all.
func checkMeta(meta map[string]string) error {
	for name, value := range meta {
		for i, c := range []byte(name) {
			if !('a' <= c|0x20 && c|0x20 <= 'z' || i > 0 && (c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9')) {
				return fmt.Errorf("%w: name %q: only letters, digits and -._ are safe, a letter first", ErrMeta, name)
			}
		}
		if name == "" {
			return fmt.Errorf("%w: a name is empty", ErrMeta)
		}
		if strings.TrimSpace(value) != value || strings.Contains(value, "  ") {
			return fmt.Errorf("%w: the value of %q has spaces that headers lose", ErrMeta, name)
		}
		for _, c := range []byte(value) {
			if c < 0x20 || c > 0x7E {
				return fmt.Errorf("%w: the value of %q holds more than printable ASCII", ErrMeta, name)
			}
		}
	}
	return nil
}

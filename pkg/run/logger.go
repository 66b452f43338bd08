package run

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// hidden is written in place of a secret.
const hidden = "[hidden]"

// Logger returns a logger that writes to w, in format text or json, from level
// debug, info, warn or error on, and hides secrets: values under keys such as
// password or token, and what looks like one inside of texts.
func Logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l, ReplaceAttr: Redact}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: use text or json", format)
}

// Redact is a slog ReplaceAttr that hides secrets. It is a net below the rule
// that none may be logged, not a licence to.
func Redact(groups []string, a slog.Attr) slog.Attr {
	secret := isSecret(a.Key)
	for _, g := range groups {
		secret = secret || isSecret(g)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		if secret && a.Value.String() != "" {
			return slog.String(a.Key, hidden)
		}
		return slog.String(a.Key, scrub(a.Value.String()))
	case slog.KindAny:
		if secret && a.Value.Any() != nil {
			return slog.String(a.Key, hidden)
		}
		return slog.Attr{Key: a.Key, Value: slog.AnyValue(clean(a.Value.Any()))}
	}
	// Numbers, times and truth values are no secrets: a seed of random choices,
	// a count of tokens.
	return a
}

// isSecret says whether a key names a secret, and not the place of one.
func isSecret(key string) bool {
	k := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(key))
	for _, place := range []string{"file", "path", "dir", "env", "name", "ref"} {
		if strings.HasSuffix(k, place) {
			return false
		}
	}
	for _, s := range []string{"password", "passwd", "passphrase", "secret", "token", "seed", "credential", "authorization", "privatekey", "apikey", "pgpass"} {
		if strings.Contains(k, s) {
			return true
		}
	}
	return false
}

// clean hides secrets inside of a value of any type.
func clean(v any) any {
	switch v := v.(type) {
	case nil, *slog.Source:
		return v
	case error:
		return scrub(v.Error())
	case fmt.Stringer:
		return scrub(v.String())
	case []byte:
		return scrub(string(v))
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return scrub(fmt.Sprintf("%+v", v))
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return scrub(string(raw))
	}
	return prune(tree)
}

func prune(v any) any {
	switch v := v.(type) {
	case string:
		return scrub(v)
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	case map[string]any:
		for k, sub := range v {
			switch s := sub.(type) {
			case string:
				if isSecret(k) && s != "" {
					v[k] = hidden
					continue
				}
				v[k] = scrub(s)
			default:
				v[k] = prune(sub)
			}
		}
	}
	return v
}

// scrubber is a pattern of a secret in a text, and what to write instead.
type scrubber struct {
	pattern func() *regexp.Regexp
	with    string
}

// scrubbers never change after the start of the program.
var scrubbers = []scrubber{
	// The user and password of a URL.
	{lazy.Regexp(`(\w://)[^/\s@]+@`), "${1}" + hidden + "@"},
	// password=x, as in connection strings; quoted or not.
	{lazy.Regexp(`(?i)\b(password|passwd|secret|token)(\s*=\s*)('[^']*'|"[^"]*"|[^\s'"]+)`), "${1}${2}" + hidden},
	{lazy.Regexp(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`), "${1} " + hidden},
	// Private nkeys.
	{lazy.Regexp(`\b(S[ACNOUX]|P)[A-Z2-7]{56}\b`), hidden},
}

// scrub hides what looks like a secret in a text.
func scrub(s string) string {
	for _, c := range scrubbers {
		s = c.pattern().ReplaceAllString(s, c.with)
	}
	return s
}

package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

type login struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Seed     int64  `json:"seed"`
	Nested   []map[string]string
}

type shy struct{ text string }

func (s shy) LogValue() slog.Value { return slog.StringValue(s.text) }

func logged(t *testing.T, format string, log func(*slog.Logger)) string {
	t.Helper()
	var out bytes.Buffer
	l, err := Logger(&out, format, "debug")
	if err != nil {
		t.Fatal(err)
	}
	log(l)
	return out.String()
}

func TestNoSecretIsLogged(t *testing.T) {
	const secret = "hunter2hunter2"
	seed := "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY"
	for name, log := range map[string]func(*slog.Logger){
		"key":              func(l *slog.Logger) { l.Info("m", "password", secret) },
		"part of a key":    func(l *slog.Logger) { l.Info("m", "adminPassword", secret, "API-Token", secret) },
		"group":            func(l *slog.Logger) { l.Info("m", slog.Group("secrets", "x", secret)) },
		"WithGroup":        func(l *slog.Logger) { l.WithGroup("credentials").Info("m", "x", secret) },
		"With":             func(l *slog.Logger) { l.With("token", secret).Info("m") },
		"struct":           func(l *slog.Logger) { l.Info("m", "login", login{Password: secret}) },
		"pointer":          func(l *slog.Logger) { l.Info("m", "login", &login{Password: secret}) },
		"deep":             func(l *slog.Logger) { l.Info("m", "x", login{Nested: []map[string]string{{"token": secret}}}) },
		"struct in secret": func(l *slog.Logger) { l.Info("m", "secret", struct{ A string }{secret}) },
		"bytes":            func(l *slog.Logger) { l.Info("m", "secret", []byte(secret)) },
		"raw json":         func(l *slog.Logger) { l.Info("m", "x", json.RawMessage(`{"password":"`+secret+`"}`)) },
		"error":            func(l *slog.Logger) { l.Info("m", "error", errors.New("dial nats://u:"+secret+"@h:1: no")) },
		"URL":              func(l *slog.Logger) { l.Info("m", "url", "postgres://u:"+secret+"@h/d") },
		"URL with a token": func(l *slog.Logger) { l.Info("m", "url", "nats://"+secret+"@h") },
		"message":          func(l *slog.Logger) { l.Info("login with password=" + secret + " failed") },
		"quoted":           func(l *slog.Logger) { l.Info("host=x password = '" + secret + " x' user=y") },
		"header":           func(l *slog.Logger) { l.Info("m", "x", "Authorization: Bearer "+secret) },
		"valuer":           func(l *slog.Logger) { l.Info("m", "x", shy{"token=" + secret}) },
		"list":             func(l *slog.Logger) { l.Info("m", "args", []string{"token=" + secret}) },
		"nkey":             func(l *slog.Logger) { l.Info("m", "x", "seed is "+seed) },
		"not JSON": func(l *slog.Logger) {
			l.Info("m", "x", struct {
				F func()
				P string
			}{nil, "password=" + secret})
		},
	} {
		for _, format := range []string{"text", "json"} {
			got := logged(t, format, log)
			if strings.Contains(got, "hunter2") || strings.Contains(got, seed) || !strings.Contains(got, hidden) {
				t.Errorf("%s, %s: %s", name, format, got)
			}
		}
	}
}

// TestPlainThingsAreLogged: hiding too much makes a log useless.
func TestPlainThingsAreLogged(t *testing.T) {
	got := logged(t, "json", func(l *slog.Logger) {
		l.Info("a message", "seed", 42, "tokens", 7, "password_file", "/run/x", "secretEnv", "PGPASS_X", "took", 2*time.Second,
			"error", errors.New("no such host"), "list", []string{"a", "b"}, "login", login{User: "u", Seed: 9}, "at", time.Unix(0, 0).UTC(),
			"none", nil, "empty", "", "url", "nats://127.0.0.1:4222", "mail", "a@b")
	})
	var m map[string]any
	if err := json.Unmarshal([]byte(got), &m); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"msg": "a message", "seed": 42.0, "tokens": 7.0, "password_file": "/run/x", "secretEnv": "PGPASS_X",
		"error": "no such host", "at": "1970-01-01T00:00:00Z", "none": nil, "empty": "", "url": "nats://127.0.0.1:4222", "mail": "a@b",
	} {
		if m[key] != want {
			t.Errorf("%s: %v, want %v", key, m[key], want)
		}
	}
	if l, ok := m["login"].(map[string]any); !ok || l["user"] != "u" || l["seed"] != 9.0 {
		t.Errorf("login: %v", m["login"])
	}
}

func TestLoggerRefuses(t *testing.T) {
	for _, c := range [][3]string{{"xml", "info", "log format"}, {"text", "loud", "log level"}, {"json", "", "log level"}} {
		if _, err := Logger(nil, c[0], c[1]); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestLevel(t *testing.T) {
	var out bytes.Buffer
	l, err := Logger(&out, "text", "warn")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("quiet")
	l.Warn("loud")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") {
		t.Fatal(got)
	}
}

package drill

import (
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/meant"
)

// secretWords mark a field that holds a secret, wherever they stand in its name.
func secretWords() []string {
	return []string{"password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey", "credential", "authorization"}
}

// referenceEndings mark a field that only points at a secret or describes it,
// such as passwordFile or tokenURL.
func referenceEndings() []string {
	return []string{"file", "env", "path", "ref", "name", "url", "uri", "dir", "ttl", "id", "required"}
}

// secretKey reports whether a field of this name holds a secret itself.
func secretKey(key string) bool {
	k := meant.Plain(key)
	if k == "pass" || strings.HasSuffix(k, "pwd") || strings.HasSuffix(key, "Pass") || strings.HasSuffix(key, "_pass") || strings.HasSuffix(key, "-pass") {
		return true
	}
	for _, end := range referenceEndings() {
		if strings.HasSuffix(k, end) {
			return false
		}
	}
	for _, w := range secretWords() {
		if strings.Contains(k, w) {
			return true
		}
	}
	return false
}

// secretAfter reports whether a word of a command is a secret because of the option before
// it, such as --token. Options that only speak of one are not, nor is what looks like
// another option, a path, or a variable.
func secretAfter(option, word string) bool {
	name := strings.TrimLeft(option, "-")
	if name == option || strings.Contains(name, "=") || strings.ContainsAny(word[:min(1, len(word))], "-/$") {
		return false
	}
	for _, asks := range []string{"no", "ask", "skip", "use", "prompt", "with", "without", "allow", "require"} {
		if strings.HasPrefix(name, asks+"-") || strings.HasPrefix(name, asks+"_") {
			return false
		}
	}
	for _, end := range []string{"fd", "type", "cache", "check", "prompt", "stdin", "lifetime", "version"} {
		if strings.HasSuffix(name, "-"+end) || strings.HasSuffix(name, "_"+end) {
			return false
		}
	}
	return secretKey(name)
}

// referenceKey reports whether a field inside a secret's mapping is part of a
// reference (to the environment, a file, or a Kubernetes secret) or says whose
// secret it is.
func referenceKey(key string) bool {
	switch key {
	case "env", "file", "secret", "namespace", "name", "key", "user", "username":
		return true
	}
	return false
}

// secretPath reports whether any step of the path names a secret.
func secretPath(path string) bool {
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return strings.ContainsRune(`.[]"`, r) }) {
		if secretKey(step) {
			return true
		}
	}
	return false
}

var (
	urlPassword  = lazy.Regexp(`://[^/@\s:]*:[^@\s/]+@`)
	pairPassword = lazy.Regexp(`(?i)(password|passwd|pwd|secret|token)\s*[=:]\s*[^\s$]`)
)

// holdsSecret reports whether a text carries a password within itself: a URL or
// a connection string with one, or a private key.
func holdsSecret(text string) bool {
	return urlPassword().MatchString(text) || pairPassword().MatchString(text) ||
		strings.Contains(text, "PRIVATE KEY-----")
}

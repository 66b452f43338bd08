package stores

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/joined"
)

// KeyError says that a key was named and is not there.
type KeyError struct {
	// Field is where it was named, such as "accessKey.env"; "" for this process's own
	// variables. Name is that of the variable or of the file.
	Field, Name string
	// Fix says what is wrong with it and what to do.
	Fix string
}

// Error names the reference, never the secret.
func (e *KeyError) Error() string {
	switch {
	case e.Field == "":
		return e.Name + ": " + e.Fix
	case e.Name == "":
		return e.Field + ": " + e.Fix
	}
	return fmt.Sprintf("%s: %q: %s", e.Field, e.Name, e.Fix)
}

// reference is a field of a store that says where a secret is found; source is nil where
// it is left out.
type reference struct {
	field  string
	source *drill.SecretSource
}

func references(s drill.Store) [2]reference {
	return [2]reference{{"accessKey", s.AccessKey}, {"secretKey", s.SecretKey}}
}

// keys reads those of a store; nil where it names none.
func keys(s drill.Store) (*credentials.Credentials, error) {
	if s.AccessKey == nil && s.SecretKey == nil {
		return nil, nil
	}
	var values [2]string
	var errs []string
	for i, ref := range references(s) {
		value, err := ref.read()
		if err != nil {
			errs = append(errs, err.Error())
		}
		values[i] = value
	}
	if len(errs) > 0 {
		return nil, errors.New(strings.Join(errs, "; "))
	}
	return credentials.NewStaticV4(values[0], values[1], ""), nil
}

// read reads what a field refers to. A key of nothing would be none: the server would be
// asked as by anybody.
func (r reference) read() (string, *KeyError) {
	const public = "; for a public bucket leave out accessKey and secretKey"
	switch s := r.source; {
	case s == nil:
		return "", &KeyError{Field: r.field, Fix: "it is missing: give both accessKey and secretKey, or neither"}
	case (s.Env == "") == (s.File == ""):
		return "", &KeyError{Field: r.field, Fix: "say where it is found: either env or file"}
	case s.Env != "":
		value, set := os.LookupEnv(s.Env)
		if value == "" {
			return "", &KeyError{r.field + ".env", s.Env, unset(set) + ": set it where firedrill is started (sudo and cron drop it), or name the right one" + public}
		}
		return value, nil
	}
	text, err := os.ReadFile(r.source.File)
	value := strings.TrimRight(string(text), "\r\n")
	switch {
	case err != nil:
		return "", &KeyError{r.field + ".file", r.source.File, fmt.Sprintf("%v: write the key into it, or name the right one%s", joined.Reason(err), public)}
	case value == "":
		return "", &KeyError{r.field + ".file", r.source.File, "this file is empty: write the key into it, or name the right one" + public}
	}
	return value, nil
}

// unset says what a variable without a value is.
func unset(set bool) string {
	if set {
		return "this environment variable is empty"
	}
	return "this environment variable is not set"
}

// The variables with a user's own keys.
const (
	ownID    = "AWS_ACCESS_KEY_ID"
	ownKey   = "AWS_SECRET_ACCESS_KEY"
	ownToken = "AWS_SESSION_TOKEN"
)

// hasOwn reports whether any of a user's own keys is named, if only with nothing in it.
func hasOwn() bool {
	_, id := os.LookupEnv(ownID)
	_, key := os.LookupEnv(ownKey)
	return id || key || os.Getenv(ownToken) != ""
}

// own reads the keys of the user whose process this is; nil where none is named.
func own() (*credentials.Credentials, error) {
	if !hasOwn() {
		return nil, nil
	}
	for _, name := range []string{ownID, ownKey} {
		if value, set := os.LookupEnv(name); value == "" {
			return nil, &KeyError{Name: name, Fix: unset(set) + ": set " + ownID + " and " + ownKey +
				" where firedrill is started (sudo and cron drop them), or for a public bucket unset both, and " + ownToken}
		}
	}
	return credentials.NewStaticV4(os.Getenv(ownID), os.Getenv(ownKey), os.Getenv(ownToken)), nil
}

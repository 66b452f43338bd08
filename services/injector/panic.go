package injector

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// safely calls and turns a panic of whoever is called into an error. The stack is
// for the log: errors go into histories and answers.
func safely(log *slog.Logger, who string, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error(who+" panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s panicked: %v", who, p)
		}
	}()
	return call()
}

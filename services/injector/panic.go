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
			err = &panicked{who: who, value: p}
		}
	}()
	return call()
}

// panicked is a panic as an error.
type panicked struct {
	who   string
	value any
}

func (p *panicked) Error() string { return fmt.Sprintf("%s panicked: %v", p.who, p.value) }

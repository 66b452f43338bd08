package telemetry

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"
)

const traceParentKey = "traceparent"

// carrier carries trace context in NATS headers. It exists because
// propagation.HeaderCarrier writes "Traceparent", which nats.Header.Get, being
// case-sensitive, does not find under the W3C name.
type carrier nats.Header

// Get finds a key as written, and failing that in any case, because some
// clients write header names as HTTP does.
func (c carrier) Get(key string) string {
	if v := nats.Header(c).Get(key); v != "" {
		return v
	}
	for k, v := range c {
		if len(v) > 0 && strings.EqualFold(k, key) {
			return v[0]
		}
	}
	return ""
}

// Set writes the key as given, which is lower case for W3C trace context.
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }

// Keys lists the header's names.
func (c carrier) Keys() []string {
	out := make([]string, 0, len(c))
	for k := range c {
		out = append(out, k)
	}
	return out
}

// Inject writes the trace context of ctx into h. Without a span in ctx, or
// with a nil header, it does nothing: tracing never stops a message.
func Inject(ctx context.Context, h nats.Header) {
	if h == nil {
		return
	}
	propagator().Inject(ctx, carrier(h))
}

// Extract returns ctx with the trace context found in h as remote parent, or
// ctx itself if there is none or it is malformed.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return propagator().Extract(ctx, carrier(h))
}

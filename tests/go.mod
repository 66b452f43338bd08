module github.com/firedrill/firedrill/tests

go 1.26.0

require (
	github.com/cloudevents/sdk-go/v2 v2.16.2
	github.com/firedrill/firedrill/pkg v0.0.0
	github.com/firedrill/firedrill/schemas v0.0.0
	github.com/firedrill/firedrill/services/firedrill v0.0.0
	github.com/firedrill/firedrill/services/injector v0.0.0
	github.com/firedrill/firedrill/services/mirror v0.0.0
	github.com/firedrill/firedrill/services/observer v0.0.0
	github.com/firedrill/firedrill/services/reporter v0.0.0
	github.com/firedrill/firedrill/services/validator v0.0.0
)

replace (
	github.com/firedrill/firedrill/pkg => ../pkg
	github.com/firedrill/firedrill/schemas => ../schemas
	github.com/firedrill/firedrill/services/firedrill => ../services/firedrill
	github.com/firedrill/firedrill/services/injector => ../services/injector
	github.com/firedrill/firedrill/services/mirror => ../services/mirror
	github.com/firedrill/firedrill/services/observer => ../services/observer
	github.com/firedrill/firedrill/services/reporter => ../services/reporter
	github.com/firedrill/firedrill/services/validator => ../services/validator
)

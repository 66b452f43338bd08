module github.com/firedrill/firedrill/services/injector

go 1.26.0

require (
	github.com/firedrill/firedrill/pkg v0.0.0
	github.com/firedrill/firedrill/schemas v0.0.0
)

replace (
	github.com/firedrill/firedrill/pkg => ../../pkg
	github.com/firedrill/firedrill/schemas => ../../schemas
)

package drill_test

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

func TestSecretsAreRefusedAndReferencesAreNot(t *testing.T) {
	good := string(read(t, "testdata/good/postgres.yaml"))
	const marker = "password: {env: PGPASSWORD}"
	if !strings.Contains(good, marker) {
		t.Fatal("the sample has no " + marker)
	}
	for _, c := range []struct {
		config string
		ok     bool
	}{
		{`password: {env: PGPASSWORD}`, true},
		{`password: {file: /run/secrets/pg}`, true},
		{`password: {secret: pg, key: password, namespace: db}`, true},
		{`passwordFile: /run/secrets/pg`, true},
		{`secret_name: pg`, true},
		{`tokenURL: "https://auth.example.org/token"`, true},
		{`accessKeyID: AKIAEXAMPLE`, true},
		{`passwordRequired: true`, true},
		{`password: ""`, true},
		{`url: "postgres://app@db/prod"`, true},
		{`url: "https://db:5432/prod?sslmode=disable"`, true},
		{`bypass: always`, true},
		{`argv: [ssh, --, token, db1, --token-file, /run/t]`, true},
		{`argv: [reach, --token-file=/run/t, db1]`, true},
		{`argv: [gpg, --passphrase-fd, "0", -d]`, true},
		{`argv: [vault, --token-type, service]`, true},
		{`argv: [mount, --credentials, /etc/creds]`, true},
		{`argv: [su, --ask-password, db1]`, true},
		{`argv: [reach, --no_password, db1]`, true},
		{`argv: [reach, --, --token, db1]`, true},
		{`argv: [reach, --token, $TOKEN]`, true},
		{`argv: [psql, --no-password, app]`, true},
		{`argv: [login, --password, --user, app]`, true},

		{`password: hunter2`, false},
		{`PASSWORD: hunter2`, false},
		{`pgPassword: hunter2`, false},
		{`db_passwd: hunter2`, false},
		{`pwd: hunter2`, false},
		{`adminPass: hunter2`, false},
		{`secret: hunter2`, false},
		{`secretKey: hunter2`, false},
		{`client-secret: hunter2`, false},
		{`apiKey: hunter2`, false},
		{`AccessKey: hunter2`, false},
		{`authToken: hunter2`, false},
		{`authorization: Bearer hunter2`, false},
		{`passwords: [hunter2]`, false},
		{`password: [{value: hunter2}]`, false},
		{`password: {text: hunter2}`, false},
		{`credentials: {user: app, value: hunter2}`, false},
		{`auth: {users: [{name: a, password: hunter2}]}`, false},
		{`url: "postgres://app:hunter2@db/prod"`, false},
		{`url: "https://db/prod?user=a&password=hunter2"`, false},
		{`conninfo: "host=db password = hunter2"`, false},
		{`args: ["--token=hunter2"]`, false},
		{`argv: [kubectl, --token, hunter2, exec, db-0, --]`, false},
		{`argv: [reach, -password, 12345]`, false},
		{`argv: [reach, "--user=app", --db-password, hunter2]`, false},
		{`password: 0x68756e746572`, false},
		{`password: 12345`, false},
	} {
		_, err := drill.Parse([]byte(strings.Replace(good, marker, c.config, 1)))
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted=%t", c.config, err, c.ok)
			continue
		}
		if err == nil {
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "12345") || strings.Contains(err.Error(), "68756e") {
			t.Errorf("%s: the answer gives the secret away: %v", c.config, err)
		}
		if ps := drill.AsProblems(err); len(ps) != 1 || !strings.Contains(ps[0].Fix, "{env: NAME} or {file: /path}") {
			t.Errorf("%s: %v", c.config, err)
		}
	}
}

// A secret must not come back in a problem of another kind either.
func TestNoProblemQuotesASecret(t *testing.T) {
	good := string(read(t, "testdata/good/postgres.yaml"))
	for _, c := range []struct{ old, new string }{
		{"config:\n", "config: \"postgres://app:hunter2@db\"\n      other:\n"},
		{"driver: postgres", "driver: \"postgres password=hunter2\""},
		{"target: pg\n", "target: \"redis://:hunter2@db\"\n"},
		{"deadline: 30m", "deadline: \"token: hunter2\""},
		{"password: {env: PGPASSWORD}", "password: *hunter2"},
		{"password: {env: PGPASSWORD}", "password: !hunter2 x"},
		{"password: {env: PGPASSWORD}", "password: &hunter2 x"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("the sample has no %q", c.old)
		}
		if _, err := drill.Parse([]byte(bad)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", c.new, err)
		}
	}
}

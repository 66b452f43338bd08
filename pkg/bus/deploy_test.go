package bus_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// guarded is a server that runs deploy/nats/firedrill.conf, or what includes it.
type guarded struct {
	t *testing.T
	// options are the URL and the certificates of whoever connects.
	options bus.Options
	seeds   string
	ring    event.Keyring
	// env is what the configuration asks for.
	env map[string]string
}

const deployedConfig = "../../deploy/nats/firedrill.conf"

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := newIdentities(t)
	g.start(deployedConfig)
	must(t, "bootstrap", g.connect("bootstrap").Bootstrap(t.Context(), bus.BootstrapOptions{}))
	return g
}

// start runs a configuration in this process.
func (g *guarded) start(config string) {
	g.t.Helper()
	for name, value := range g.env {
		g.t.Setenv(name, value)
	}
	g.options.URL = startServer(g.t, bus.EmbeddedOptions{ConfigFile: config, StoreDir: g.t.TempDir(), Listen: "127.0.0.1:0"}).URL()
}

// newIdentities makes everybody's keys, and no server yet.
func newIdentities(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{t: t, seeds: t.TempDir(), env: map[string]string{
		"FIREDRILL_NATS_NAME": "test", "FIREDRILL_PASSWORD_CI": `"ci secret"`, "FIREDRILL_PASSWORD_ALERTS": `"12345"`,
	}}
	set, err := keys.LoadOrCreate(g.seeds)
	must(t, "keys", err)
	g.ring = set.Keyring
	for _, service := range event.Services() {
		s, err := set.Signer(service)
		must(t, "key of "+service, err)
		g.env["FIREDRILL_NKEY_"+strings.ToUpper(service)] = s.Public()
	}
	for _, other := range []string{"bootstrap", "cli"} {
		// The package makes seeds for services only; take one of a second directory.
		dir := filepath.Join(t.TempDir(), other)
		more, err := keys.LoadOrCreate(dir)
		must(t, "keys", err)
		s, err := more.Signer(event.Injector)
		must(t, "key of "+other, err)
		must(t, "take the key", os.Rename(keys.SeedFile(dir, event.Injector), keys.SeedFile(g.seeds, other)))
		g.env["FIREDRILL_NKEY_"+strings.ToUpper(other)] = s.Public()
	}
	return g
}

// connect connects as a service that signs with the key it logs in with.
func (g *guarded) connect(service string) *bus.Bus { return g.connectAs(service, service) }

// connectAs logs in with one identity's key and plays another one.
func (g *guarded) connectAs(login, play string) *bus.Bus {
	g.t.Helper()
	w := signers{by: map[string]*keys.Signer{}}
	s, err := keys.Load(keys.SeedFile(g.seeds, login))
	if err != nil {
		g.t.Fatal(err)
	}
	w.by[play] = s
	o := g.options
	o.Identity, o.Keyring, o.NKeySeedFile = w.identity(play, play+"-1"), g.ring, keys.SeedFile(g.seeds, login)
	return connect(g.t, o)
}

// requester is a plain NATS client in the account REQUESTERS.
func (g *guarded) requester(user, password string) (*nats.Conn, chan error) {
	g.t.Helper()
	refused := make(chan error, 100)
	closed := make(chan struct{})
	nc, err := nats.Connect(g.options.URL, nats.UserInfo(user, password), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { nc.Close(); <-closed })
	return nc, refused
}

// TestDeployedServicesWork runs each service's part against the guarded server.
func TestDeployedServicesWork(t *testing.T) {
	g := newGuarded(t)
	services := map[string]*bus.Bus{}
	for _, service := range append(event.Services(), "cli") {
		services[service] = g.connect(service)
		if err := services[service].Ready(t.Context()); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
	injector, cli := services[event.Injector], services["cli"]
	requests := make(chan bus.Message, 10)
	spawn(t, func(ctx context.Context) error {
		return injector.Work(ctx, "injector-requests", bus.WorkOptions{}, func(_ context.Context, m bus.Message) error {
			requests <- m
			return injector.PublishResult(ctx, "ci", "weekly", map[string]string{"state": "accepted"})
		})
	})
	spawn(t, func(ctx context.Context) error {
		return injector.Serve(ctx, event.Injector, map[string]bus.Endpoint{
			"validate": func(context.Context, []byte) ([]byte, error) { return []byte("fine"), nil },
			"clock.i":  func(context.Context, []byte) ([]byte, error) { return []byte("tick"), nil },
		})
	})
	nc, _ := g.requester("ci", "ci secret")
	live, err := nc.SubscribeSync("drill.res.ci.>")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := nc.RequestWithContext(t.Context(), "drill.req.ci.weekly", []byte("please"))
	if err != nil || !strings.Contains(string(answer.Data), bus.StreamRequests) {
		t.Fatalf("request: %v", err)
	}
	if m := await(t, requests, 10*time.Second, "request"); m.Subject != "drill.req.ci.weekly" {
		t.Errorf("the injector saw %s", m.Subject)
	}
	if m, err := live.NextMsg(10 * time.Second); err != nil || !strings.Contains(string(m.Data), "accepted") {
		t.Errorf("live result: %v", err)
	}
	stored, err := nc.RequestWithContext(t.Context(), "$JS.API.DIRECT.GET.RESULTS.drill.res.ci.weekly", nil)
	if err != nil || !strings.Contains(string(stored.Data), "accepted") {
		t.Errorf("stored result: %v", err)
	}
	if past := resultsOf(t, injector, "ci", "weekly", time.Now().Add(-time.Hour)); len(past) != 1 {
		t.Errorf("the injector's own answers: %s", past)
	}
	eventually(t, 10*time.Second, "API across the accounts", func() bool {
		m, err := nc.RequestWithContext(t.Context(), "firedrill.api.validate", nil)
		return err == nil && string(m.Data) == "fine"
	})
	if out, err := services[event.Observer].Call(t.Context(), "clock.i", nil); err != nil || string(out) != "tick" {
		t.Errorf("clock: %q, %v", out, err)
	}
	g.drill(t, services)
	g.mirror(t, services)
	if err := cli.SetHalt(t.Context(), bus.Halt{Halted: true, By: "me"}); err != nil {
		t.Error(err)
	}
	if h, err := injector.HaltState(t.Context()); err != nil || !h.Halted {
		t.Errorf("halt: %+v, %v", h, err)
	}
	for name, b := range services {
		if err := b.Ready(t.Context()); err != nil {
			t.Errorf("after its work the %s is not ready: %v", name, err)
		}
	}
}

// mirror lets a requester ask for a mirror, and the mirror work it off.
func (g *guarded) mirror(t *testing.T, services map[string]*bus.Bus) {
	t.Helper()
	mirror, cli := services[event.Mirror], services["cli"]
	requests, ticks, work := make(chan bus.Message, 10), make(chan bus.Message, 100), make(chan bus.Message, 10)
	into := func(seen chan bus.Message) func(context.Context, bus.Message) error {
		return func(_ context.Context, m bus.Message) error {
			seen <- m
			return nil
		}
	}
	for queue, seen := range map[string]chan bus.Message{bus.MirrorRequests: requests, bus.MirrorTicks: ticks} {
		spawn(t, func(ctx context.Context) error { return mirror.Work(ctx, queue, bus.WorkOptions{}, into(seen)) })
	}
	spawn(t, func(ctx context.Context) error {
		return mirror.WorkLanes(ctx, bus.MirrorWork, []bus.Lane{{Name: "in"}, {Name: "out"}}, bus.WorkOptions{Concurrency: 2}, into(work))
	})
	nc, _ := g.requester("ci", "ci secret")
	_, err := nc.RequestWithContext(t.Context(), "mirror.req.ci.out", []byte("{}"))
	must(t, "request", err)
	req, err := bus.ReadMirrorRequest(await(t, requests, 10*time.Second, "request").Subject)
	if err != nil || req != (bus.MirrorRequest{Who: "ci", Mirror: "out"}) {
		t.Errorf("request %+v, %v", req, err)
	}
	sync, verify := bus.MirrorSchedule{Mirror: "out", What: "sync"}, bus.MirrorSchedule{Mirror: "out", What: "verify"}
	must(t, "schedule", mirror.ScheduleMirror(t.Context(), verify, "@every 1h", ""))
	must(t, "schedule", mirror.ScheduleMirror(t.Context(), sync, "@every 1s", ""))
	if ticked, err := bus.ReadMirrorTick(await(t, ticks, 10*time.Second, "tick").Subject); err != nil || ticked != sync {
		t.Errorf("tick of %+v, %v", ticked, err)
	}
	ticked := func(s bus.MirrorSchedule, want bool) {
		t.Helper()
		if at, err := cli.MirrorTimes(t.Context(), s); err != nil || (at.Spec != "") != want || want && time.Since(at.Set) > time.Minute {
			t.Errorf("%+v is known as %+v, %v", s, at, err)
		}
	}
	ticked(sync, true)
	must(t, "keep schedules", mirror.KeepMirrorSchedules(t.Context(), func(s bus.MirrorSchedule) bool { return s == verify }))
	ticked(sync, false)
	ticked(verify, true) // which is a schedule of its own
	_, err = mirror.Publish(t.Context(), "mirror.req.schedule-verify.out", []byte("{}"), "a tick")
	must(t, "ask for a verification", err)
	_, err = mirror.Publish(t.Context(), "mirror.req.drill.out", []byte("{}"), "a step of a drill")
	must(t, "ask for a drill", err)
	if last, _, err := mirror.MirrorRequested(t.Context(), "drill", "out"); err != nil || last.Seq != 3 || time.Since(last.Stored) > time.Minute {
		t.Errorf("the last request is %+v, %v", last, err)
	}
	g.mirrorRun(t, mirror, work)
	g.mirrorEvents(t, mirror, cli)
}

// must fails the test, and says at what.
func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// mirrorRun lets a process have a mirror, and its work carried out.
func (g *guarded) mirrorRun(t *testing.T, mirror *bus.Bus, work <-chan bus.Message) {
	t.Helper()
	lease, err := mirror.MirrorLease(t.Context(), "out")
	must(t, "read the lease", err)
	for _, run := range []string{"r1", "r1", ""} { // taken, renewed, given back
		lease, err = mirror.TakeMirrorLease(t.Context(), lease, run)
		must(t, "lease", err)
		if now, err := mirror.MirrorLease(t.Context(), "out"); err != nil || now != lease || now.Run != run {
			t.Errorf("the lease is %+v, %v; want %+v", now, err, lease)
		}
	}
	must(t, "work", mirror.PublishMirrorWork(t.Context(), "out", "r1", 7, []byte("item")))
	item, err := bus.ReadMirrorWork(await(t, work, 10*time.Second, "work").Subject)
	if err != nil || item != (bus.MirrorItem{Mirror: "out", Run: "r1", Number: 7}) {
		t.Errorf("item %+v, %v", item, err)
	}
	if _, err := mirror.MirrorWorkWaits(t.Context(), "out", "r1", 7); err != nil {
		t.Error(err)
	}
	must(t, "done", mirror.PublishMirrorDone(t.Context(), "out", "r1", 7, []byte("result")))
	must(t, "follow what is done", mirror.FollowMirrorDone(t.Context(), "out", "r1", func(r bus.Record) error {
		if r.Kind != "7" || string(r.Data) != "result" || r.Instance != "mirror-1" {
			t.Errorf("%+v", r)
		}
		return bus.Stop
	}))
	must(t, "drop", errors.Join(mirror.DropMirrorDone(t.Context(), "out", "r1"), mirror.DropMirrorWork(t.Context(), "out", "r1")))
}

// mirrorEvents lets the command line see what becomes of a run, and call it off.
func (g *guarded) mirrorEvents(t *testing.T, mirror, cli *bus.Bus) {
	t.Helper()
	alerts, _ := g.requester("alerts", "12345")
	drift, err := alerts.SubscribeSync("mirror.evt.*.drift")
	must(t, "subscribe to drift", err)
	must(t, "flush", alerts.Flush())
	must(t, "drift", mirror.PublishMirrorEvent(t.Context(), "out", "drift", "0", map[string]string{"mirror": "out"}))
	if m, err := drift.NextMsg(10 * time.Second); err != nil || m.Subject != "mirror.evt.out.drift" || !strings.Contains(string(m.Data), "out") {
		t.Errorf("the alert: %v", err)
	}
	must(t, "event", mirror.PublishMirrorEvent(t.Context(), "out", "finished", "1", map[string]int{"copied": 3}))
	must(t, "follow events", cli.FollowMirror(t.Context(), "out", 0, func(r bus.Record) error {
		if r.Kind == "drift" {
			return nil
		}
		if r.Kind != "finished" {
			t.Errorf("%+v", r)
		}
		return bus.Stop
	}))
	must(t, "follow events of a kind", cli.FollowMirrorKind(t.Context(), "out", "finished", 0, func(bus.Record) error { return bus.Stop }))
	if last, known, err := cli.LastMirror(t.Context(), "out"); err != nil || !known || last.Kind != "finished" {
		t.Errorf("last %+v, %v, %v", last, known, err)
	}
	if last, known, err := cli.LastMirrorEvent(t.Context(), "out", "failed"); err != nil || known {
		t.Errorf("last failure %+v, %v, %v", last, known, err)
	}
	// Whether anybody runs mirrors, and whether any run there tells of itself.
	if readers, err := cli.MirrorReaders(t.Context()); err != nil || readers != 1 {
		t.Errorf("%d wait for requests, %v", readers, err)
	}
	if last, known, err := cli.LastMirrorEvent(t.Context(), "*", "*"); err != nil || !known || last.Kind != "finished" {
		t.Errorf("last of any mirror %+v, %v, %v", last, known, err)
	}
	must(t, "command", cli.PublishMirrorCommand(t.Context(), "out", "cancel", nil))
	must(t, "follow commands", mirror.FollowMirrorCommands(t.Context(), "out", 0, func(r bus.Record) error {
		if r.Kind != "cancel" {
			t.Errorf("%+v", r)
		}
		return bus.Stop
	}))
}

// drill lets the services write, watch, work, command and bury.
func (g *guarded) drill(t *testing.T, services map[string]*bus.Bus) {
	t.Helper()
	injector, cli := services[event.Injector], services["cli"]
	mustAppend := func(b *bus.Bus, drafts ...event.Draft) {
		t.Helper()
		if _, err := b.Append(t.Context(), "d", drafts...); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(injector, accepted(), phase(1))
	mustAppend(services[event.Observer], outage(1))
	mustAppend(injector, finished())
	spawn(t, func(ctx context.Context) error {
		return services[event.Reporter].Work(ctx, "reporter-finished", bus.WorkOptions{}, func(context.Context, bus.Message) error {
			return bus.Poison(errors.New("no ink"))
		})
	})
	var letters []bus.DeadLetter
	eventually(t, 20*time.Second, "dead letter", func() bool {
		var err error
		letters, err = cli.DeadLetters(t.Context())
		return err == nil && len(letters) == 1
	})
	if err := cli.ReplayDead(t.Context(), letters[0].Seq); err != nil {
		t.Error(err)
	}
	if err := cli.Command(t.Context(), "d", "abort", nil); err != nil {
		t.Error(err)
	}
	err := injector.FollowCommands(t.Context(), "d", func(string, []byte) error { return bus.Stop })
	if err != nil {
		t.Error(err)
	}
	if list, err := cli.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list %v, %v", list, err)
	}
	mustVerify(t, cli, g.ring, "d", 4)
}

// TestRequesterCannotForge tries everything a requester could try.
func TestRequesterCannotForge(t *testing.T) {
	g := newGuarded(t)
	injector := g.connect(event.Injector)
	written, err := injector.Append(t.Context(), "d", accepted())
	if err != nil {
		t.Fatal(err)
	}
	nc, refused := g.requester("ci", "ci secret")
	const forged = "drill.evt.d.injector.fault-injected"
	// The server does not refuse this one: the subject is the requester's own.
	// The acknowledgement must not become an event.
	if err := nc.PublishRequest("drill.req.ci.x", forged, []byte("one")); err != nil {
		t.Fatal(err)
	}
	// The same by way of the API and of the stored results.
	for _, subject := range []string{"firedrill.api.validate", "$JS.API.DIRECT.GET.RESULTS.drill.res.ci.x"} {
		if err := nc.PublishRequest(subject, forged, written[0].Raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		forged, "drill.req.alerts.x", "drill.cmd.d.abort", "drill.halt", "drill.claim.x", "drill.res.ci.x", "dead.x", "retry.injector-requests",
		"$JS.API.STREAM.DELETE.DRILLS", "$JS.API.STREAM.UPDATE.DRILLS", "$JS.API.STREAM.PURGE.DRILLS", "$JS.API.STREAM.MSG.DELETE.DRILLS",
		"$JS.API.DIRECT.GET.DRILLS", "$JS.API.STREAM.MSG.GET.DRILLS", "$JS.API.DIRECT.GET.RESULTS.drill.res.alerts.x", "firedrill.api.abort",
	} {
		if err := nc.Publish(subject, written[0].Raw); err != nil {
			t.Fatal(err)
		}
		if err := await(t, refused, 10*time.Second, "refusal of "+subject); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for _, subject := range []string{"drill.res.alerts.>", "drill.evt.>", "mirror.evt.>", "_INBOX.>", "_INBOX_alerts.>", "drill.req.>"} {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		await(t, refused, 10*time.Second, "refusal of subscribing "+subject)
		_ = sub.Unsubscribe() // It was never made.
	}
	// A further request is answered after all of the above was dealt with.
	if _, err := nc.RequestWithContext(t.Context(), "drill.req.ci.last", nil); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, g.connect("cli"), g.ring, "d", 1)
}

// TestServiceCannotBeAnother: not by permission, and not by signature.
func TestServiceCannotBeAnother(t *testing.T) {
	g := newGuarded(t)
	if _, err := g.connect(event.Injector).Append(t.Context(), "d", accepted()); err != nil {
		t.Fatal(err)
	}
	// With the observer's login and key, playing the injector. Its inbox is
	// refused as well, so this fails already at readiness.
	impostor := g.connectAs(event.Observer, event.Injector)
	if err := impostor.Ready(t.Context()); !errors.Is(err, bus.ErrDenied) {
		t.Errorf("ready as another service: %v, want ErrDenied", err)
	}
	// A plain client with the observer's key publishes to the injector's subject.
	nc, refused := g.login(event.Observer)
	for _, subject := range []string{
		"drill.evt.d.injector.drill-finished", "drill.evt.d.validator.checks-completed", "drill.req.me.x", "drill.halt",
		"$JS.API.STREAM.DELETE.DRILLS", "$JS.API.STREAM.UPDATE.DRILLS", "$JS.API.STREAM.PURGE.DRILLS", "$JS.API.STREAM.MSG.DELETE.DRILLS",
		"$JS.API.CONSUMER.DELETE.DRILLS.validator-checks", "$JS.API.CONSUMER.MSG.NEXT.DRILLS.validator-checks",
		"$JS.API.CONSUMER.CREATE.DRILLS.validator-checks.drill.evt.>", "$JS.API.DIRECT.GET.DRILLS", "$JS.API.CONSUMER.CREATE.REQUESTS.x.drill.req.>",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := await(t, refused, 10*time.Second, "refusal of "+subject); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	// On its own subject it can store what it likes, also by the reply attack,
	// and nobody believes it.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "drill.evt.d.observer.drill-finished", []byte(`{"type":"drill.finished"}`)); err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("drill.evt.d.observer.x", "drill.evt.d.injector.drill-finished", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	var history []bus.Stored
	cli := g.connect("cli")
	eventually(t, 10*time.Second, "the attack's messages", func() bool {
		history, err = cli.History(t.Context(), "d")
		return err == nil && len(history) >= 4
	})
	for _, s := range history[1:] {
		if s.Trust == nil {
			t.Errorf("message %d of the attack is trusted", s.Seq)
		}
	}
	if list, err := cli.List(t.Context()); err != nil || len(list) != 1 || list[0].Finished != nil {
		t.Errorf("the attack finished the drill: %+v, %v", list, err)
	}
}

// login is a plain client with a service's key.
func (g *guarded) login(service string, more ...nats.Option) (*nats.Conn, chan error) {
	g.t.Helper()
	nkey, err := nats.NkeyOptionFromSeed(keys.SeedFile(g.seeds, service))
	if err != nil {
		g.t.Fatal(err)
	}
	refused := make(chan error, 100)
	closed := make(chan struct{})
	nc, err := nats.Connect(g.options.URL, append(more, nkey, nats.CustomInboxPrefix("_INBOX_"+service),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { nc.Close(); <-closed })
	return nc, refused
}

// TestWrongLoginIsRefusedAtOnce: no retries on bad credentials.
func TestWrongLoginIsRefusedAtOnce(t *testing.T) {
	g := newGuarded(t)
	began := time.Now()
	_, err := bus.Connect(t.Context(), bus.Options{URL: g.options.URL, Identity: newSigners(t).identity("cli", "c"), Log: quiet()})
	if !errors.Is(err, nats.ErrAuthorization) || time.Since(began) > 5*time.Second {
		t.Errorf("without credentials: %v after %s", err, time.Since(began))
	}
}

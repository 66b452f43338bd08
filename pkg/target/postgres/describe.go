package postgres

import (
	"encoding/json"

	"github.com/firedrill/firedrill/pkg/target"
)

// Describe lists what the driver can do.
func (Driver) Describe() target.Description {
	d := target.Description{Sample: sample}
	for _, k := range operations() {
		info := target.OperationInfo{Name: k.name, Doc: k.doc, CheckParams: func(raw json.RawMessage) error {
			_, err := k.readParams(raw)
			return err
		}}
		if k.action {
			d.Actions = append(d.Actions, info)
		} else {
			d.Faults = append(d.Faults, info)
		}
	}
	for _, name := range []string{ProbeWrite, ProbeRead} {
		doc := "INSERT a canary through the service; ok when its commit is acknowledged. params: maxConnections (40)."
		if name == ProbeRead {
			doc = "SELECT the highest canary of a write probe's pooled lane. params: of (the write probe), maxConnections (40)."
		}
		d.Probes = append(d.Probes, target.OperationInfo{Name: name, Doc: doc, Writes: name == ProbeWrite, CheckParams: func(raw json.RawMessage) error {
			_, err := readProbeParams(name, raw)
			return err
		}})
	}
	for _, k := range checkKinds() {
		d.Checks = append(d.Checks, target.OperationInfo{Name: k.name, Doc: k.doc, NeedsBaseline: k.needsBaseline, CheckParams: func(raw json.RawMessage) error {
			_, err := k.readParams(raw)
			return err
		}})
	}
	return d
}

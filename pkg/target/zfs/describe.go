package zfs

import (
	"encoding/json"

	"github.com/firedrill/firedrill/pkg/target"
)

// Describe lists what the driver can do.
func (Driver) Describe() target.Description {
	d := target.Description{Sample: sample, Probes: probeInfos()}
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
	for _, k := range checkKinds() {
		d.Checks = append(d.Checks, target.OperationInfo{Name: k.name, Doc: k.doc, NeedsBaseline: k.baseline != nil, CheckParams: func(raw json.RawMessage) error {
			_, err := k.readParams(raw)
			return err
		}})
	}
	return d
}

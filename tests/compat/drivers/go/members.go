package main

import (
	"fmt"
	"sync"
)

// Notes is what a member of a group tells of itself.
type Notes struct {
	lock    sync.Mutex
	records [][2]int64 // partition, offset
	revoked []int32    // partitions that were taken away, ever
	failure error
}

func (n *Notes) read(partition int32, offset int64) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.records = append(n.records, [2]int64{int64(partition), offset})
}

func (n *Notes) lost(partitions []int32) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.revoked = append(n.revoked, partitions...)
}

func (n *Notes) failed(err error) {
	n.lock.Lock()
	defer n.lock.Unlock()
	if n.failure == nil {
		n.failure = err
	}
}

func (n *Notes) look(client Client, since int) map[string]any {
	n.lock.Lock()
	defer n.lock.Unlock()
	told := map[string]any{"records": append([][2]int64{}, n.records[since:]...), "revoked": append([]int32{}, n.revoked...), "error": nil}
	if n.failure != nil {
		told["error"] = Failed{client.Code(n.failure), fmt.Sprintf("%T: %v", n.failure, n.failure)}
	}
	return told
}

// Member reads its share of a topic in the background.
type Member interface {
	Notes() *Notes
	Commit(metadata *string) error
	Leave() error
}

// Members are those that joined and did not leave, by the test's names.
type Members struct {
	lock sync.Mutex
	all  map[string]Member
}

var members = Members{all: map[string]Member{}}

func (m *Members) get(name string) Member {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.all[name]
}

// perform does join, look, commit and leave; the last result says whether it was one of them.
func (m *Members) perform(client Client, ask *Ask) (map[string]any, error, bool) {
	switch ask.Op {
	case "join":
		member, err := client.Join(ask)
		if err == nil {
			m.lock.Lock()
			m.all[ask.Member] = member
			m.lock.Unlock()
		}
		return map[string]any{}, err, true
	case "look":
		return m.get(ask.Member).Notes().look(client, ask.Since), nil, true
	case "commit":
		return map[string]any{}, m.get(ask.Member).Commit(ask.Metadata), true
	case "leave":
		err := m.get(ask.Member).Leave()
		m.lock.Lock()
		delete(m.all, ask.Member)
		m.lock.Unlock()
		return map[string]any{}, err, true
	}
	return nil, nil, false
}

// described is one member in the answer to describe_group.
func described(clientID string, instanceID *string, partitions []int32) []any {
	if instanceID != nil && *instanceID == "" {
		instanceID = nil
	}
	return []any{clientID, instanceID, append([]int32{}, partitions...)}
}

package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

type segmentioMember struct {
	notes  Notes
	reader *kafka.Reader
	auto   bool
	closed atomic.Bool

	lock sync.Mutex
	last map[int]kafka.Message
}

func (m *segmentioMember) Notes() *Notes { return &m.notes }

func (segmentio) Join(ask *Ask) (Member, error) {
	config, err := ask.tls()
	if err != nil {
		return nil, err
	}
	m := &segmentioMember{auto: ask.AutoCommit, last: map[int]kafka.Message{}}
	reading := kafka.ReaderConfig{
		Brokers: []string{ask.Servers}, GroupID: ask.Group, Topic: ask.Topic,
		Dialer:            &kafka.Dialer{ClientID: ask.ClientID, TLS: config, Timeout: 10 * time.Second},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		StartOffset:       kafka.FirstOffset,
		SessionTimeout:    ms(ask.SessionMs),
		HeartbeatInterval: ms(ask.HeartbeatMs),
		RebalanceTimeout:  10 * time.Second, // it waits this long for its own former self
		JoinGroupBackoff:  500 * time.Millisecond,
		MaxAttempts:       20, // to join, before it tells why it did not
		MaxWait:           500 * time.Millisecond,
		MinBytes:          1,
		MaxBytes:          4_000_000,
	}
	if ask.AutoCommit {
		reading.CommitInterval = 200 * time.Millisecond
	}
	m.reader = kafka.NewReader(reading)
	go m.run()
	return m, nil
}

func (m *segmentioMember) run() {
	next := m.reader.FetchMessage
	if m.auto {
		next = m.reader.ReadMessage
	}
	for {
		in, err := next(context.Background())
		if m.closed.Load() {
			return
		}
		var code kafka.Error
		if errors.As(err, &code) && !code.Temporary() {
			m.notes.failed(err)
			return
		}
		if err != nil { // of a connection, io.EOF too, or a group that is being read: the reader tells it and goes on
			continue
		}
		m.lock.Lock()
		m.last[in.Partition] = in
		m.lock.Unlock()
		m.notes.read(int32(in.Partition), in.Offset) // last: a commit that is asked for now commits it
	}
}

func (m *segmentioMember) Commit(*string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, message := range m.last {
		if err := m.reader.CommitMessages(ctx, message); err != nil {
			return err
		}
	}
	return nil
}

func (m *segmentioMember) Leave() error {
	m.closed.Store(true)
	return m.reader.Close()
}

// groups answers what an admin client asks of groups; the last result says whether this was such a question.
func (segmentio) groups(ctx context.Context, ask *Ask, client *kafka.Client) (map[string]any, error, bool) {
	one := map[string][]int{ask.Topic: {int(ask.Partition)}}
	switch ask.Op {
	case "groups":
		told, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err = errors.Join(err, failureOf(told)); err != nil {
			return nil, err, true
		}
		names := []string{}
		for _, group := range told.Groups {
			names = append(names, group.GroupID)
		}
		return map[string]any{"groups": names}, nil, true
	case "describe_group":
		told, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{ask.Group}})
		if err == nil {
			err = told.Groups[0].Error
		}
		if err != nil {
			return nil, err, true
		}
		all := []any{}
		for _, member := range told.Groups[0].Members {
			var assigned []int32
			for _, topic := range member.MemberAssignments.Topics {
				for _, partition := range topic.Partitions {
					assigned = append(assigned, int32(partition))
				}
			}
			all = append(all, described(member.ClientID, nil, assigned))
		}
		return map[string]any{"state": told.Groups[0].GroupState, "members": all}, nil, true
	case "delete_group":
		told, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{ask.Group}})
		if err == nil {
			err = told.Errors[ask.Group]
		}
		return map[string]any{}, err, true
	case "group_offset":
		told, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: ask.Group, Topics: one})
		if err == nil {
			err = told.Error
		}
		if err != nil {
			return nil, err, true
		}
		found := told.Topics[ask.Topic][0]
		if found.CommittedOffset < 0 {
			return map[string]any{"offset": nil, "metadata": nil, "epoch": nil}, found.Error, true
		}
		return map[string]any{"offset": found.CommittedOffset, "metadata": found.Metadata, "epoch": nil}, found.Error, true
	case "alter_offset":
		to := kafka.OffsetCommit{Partition: int(ask.Partition), Offset: int64(ask.Offset.(float64))}
		told, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: ask.Group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{ask.Topic: {to}},
		})
		if err == nil {
			err = told.Topics[ask.Topic][0].Error
		}
		return map[string]any{}, err, true
	case "delete_offset":
		told, err := client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: ask.Group, Topics: one})
		if err == nil {
			err = told.Error
		}
		if err == nil {
			err = told.Topics[ask.Topic][0].Error
		}
		return map[string]any{}, err, true
	}
	return nil, nil, false
}

func failureOf(told *kafka.ListGroupsResponse) error {
	if told == nil {
		return nil
	}
	return told.Error
}

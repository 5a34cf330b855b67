package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

type saramaMember struct {
	notes Notes
	ask   *Ask
	group sarama.ConsumerGroup
	stop  context.CancelFunc
	ended chan struct{}

	lock    sync.Mutex
	session sarama.ConsumerGroupSession
	next    map[int32]int64 // read, not marked: without auto commit
}

func (m *saramaMember) Notes() *Notes { return &m.notes }

func (s saramaClient) Join(ask *Ask) (Member, error) {
	config, err := s.config(ask)
	if err != nil {
		return nil, err
	}
	config.Consumer.Group.Session.Timeout = ms(ask.SessionMs)
	config.Consumer.Group.Heartbeat.Interval = ms(ask.HeartbeatMs)
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = ask.AutoCommit
	config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	config.Consumer.Return.Errors = true
	config.Metadata.RefreshFrequency = 2 * time.Second
	config.Metadata.Retry.Max = 200 // a quarter of a second each: a broker may restart
	if ask.InstanceID != nil {
		config.Consumer.Group.InstanceId = *ask.InstanceID
	}
	group, err := sarama.NewConsumerGroup([]string{ask.Servers}, ask.Group, config)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &saramaMember{ask: ask, group: group, stop: stop, ended: make(chan struct{}), next: map[int32]int64{}}
	go func() {
		for range group.Errors() { // it goes on by itself
		}
	}()
	go m.run(ctx)
	return m, nil
}

func (m *saramaMember) run(ctx context.Context) {
	defer close(m.ended)
	for ctx.Err() == nil {
		err := m.group.Consume(ctx, []string{m.ask.Topic}, m)
		if errors.Is(err, sarama.ErrClosedConsumerGroup) {
			return
		}
		if errors.Is(err, sarama.ErrFencedInstancedId) {
			m.notes.failed(err)
			return
		}
		if err != nil && ctx.Err() == nil {
			time.Sleep(200 * time.Millisecond) // as its examples do: the user calls it again
		}
	}
}

func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = session
	m.next = map[int32]int64{}
	return nil
}

func (m *saramaMember) Cleanup(session sarama.ConsumerGroupSession) error {
	m.notes.lost(session.Claims()[m.ask.Topic])
	return nil
}

func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case in, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			if m.ask.AutoCommit {
				session.MarkMessage(in, "")
			} else {
				m.lock.Lock()
				m.next[in.Partition] = in.Offset + 1
				m.lock.Unlock()
			}
			m.notes.read(in.Partition, in.Offset) // last: a commit that is asked for now commits it
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *saramaMember) Commit(metadata *string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	words := ""
	if metadata != nil {
		words = *metadata
	}
	for partition, offset := range m.next {
		m.session.MarkOffset(m.ask.Topic, partition, offset, words)
	}
	m.session.Commit()
	return nil
}

func (m *saramaMember) Leave() error {
	m.stop()
	<-m.ended
	return m.group.Close()
}

// groups answers what an admin client asks of groups; the last result says whether this was such a question.
func (saramaClient) groups(ask *Ask, admin sarama.ClusterAdmin) (map[string]any, error, bool) {
	one := map[string][]int32{ask.Topic: {ask.Partition}}
	switch ask.Op {
	case "groups":
		told, err := admin.ListConsumerGroups()
		names := []string{}
		for name := range told {
			names = append(names, name)
		}
		return map[string]any{"groups": names}, err, true
	case "describe_group":
		told, err := admin.DescribeConsumerGroups([]string{ask.Group})
		if err == nil && told[0].Err != sarama.ErrNoError {
			err = told[0].Err
		}
		if err != nil {
			return nil, err, true
		}
		all := []any{}
		for _, member := range told[0].Members {
			assignment, err := member.GetMemberAssignment()
			if err != nil {
				return nil, err, true
			}
			var assigned []int32
			if assignment != nil {
				for _, partitions := range assignment.Topics {
					assigned = append(assigned, partitions...)
				}
			}
			all = append(all, described(member.ClientId, member.GroupInstanceId, assigned))
		}
		return map[string]any{"state": told[0].State, "members": all}, nil, true
	case "delete_group":
		return map[string]any{}, admin.DeleteConsumerGroup(ask.Group), true
	case "group_offset":
		told, err := admin.ListConsumerGroupOffsets(ask.Group, one)
		if err != nil {
			return nil, err, true
		}
		found := told.GetBlock(ask.Topic, ask.Partition)
		if found == nil || found.Offset < 0 {
			return map[string]any{"offset": nil, "metadata": nil, "epoch": nil}, nil, true
		}
		return map[string]any{"offset": found.Offset, "metadata": found.Metadata, "epoch": found.LeaderEpoch}, nil, true
	case "alter_offset":
		to := sarama.OffsetAndMetadata{Offset: int64(ask.Offset.(float64)), LeaderEpoch: -1}
		told, err := admin.AlterConsumerGroupOffsets(ask.Group, map[string]map[int32]sarama.OffsetAndMetadata{ask.Topic: {ask.Partition: to}}, nil)
		if err == nil && told.Errors[ask.Topic][ask.Partition] != sarama.ErrNoError {
			err = told.Errors[ask.Topic][ask.Partition]
		}
		return map[string]any{}, err, true
	case "delete_offset":
		return map[string]any{}, admin.DeleteConsumerGroupOffset(ask.Group, ask.Topic, ask.Partition), true
	}
	return nil, nil, false
}

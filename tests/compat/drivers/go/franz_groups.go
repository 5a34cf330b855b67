package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type franzMember struct {
	notes  Notes
	client *kgo.Client
}

func (m *franzMember) Notes() *Notes { return &m.notes }

func (f franz) Join(ask *Ask) (Member, error) {
	m := &franzMember{}
	balancer := kgo.GroupBalancer(kgo.RangeBalancer())
	if ask.Cooperative {
		balancer = kgo.CooperativeStickyBalancer()
	}
	// with a callback of one's own, committing before partitions go is one's own too
	taken := func(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
		if ask.AutoCommit {
			if err := client.CommitUncommittedOffsets(ctx); err != nil {
				m.notes.failed(err)
			}
		}
		m.notes.lost(partitions[ask.Topic])
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(ask.Group),
		kgo.ConsumeTopics(ask.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(balancer),
		kgo.SessionTimeout(ms(ask.SessionMs)),
		kgo.HeartbeatInterval(ms(ask.HeartbeatMs)),
		kgo.MetadataMinAge(200 * time.Millisecond),
		kgo.MetadataMaxAge(2 * time.Second),
		kgo.OnPartitionsRevoked(taken),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { m.notes.lost(lost[ask.Topic]) }),
	}
	if ask.InstanceID != nil {
		options = append(options, kgo.InstanceID(*ask.InstanceID))
	}
	if ask.AutoCommit {
		options = append(options, kgo.AutoCommitInterval(200*time.Millisecond))
	} else {
		options = append(options, kgo.DisableAutoCommit())
	}
	var err error
	if m.client, err = f.open(ask, options...); err != nil {
		return nil, err
	}
	go m.run()
	return m, nil
}

func (m *franzMember) run() {
	for {
		fetched := m.client.PollFetches(context.Background())
		if fetched.IsClientClosed() {
			return
		}
		for _, failure := range fetched.Errors() {
			// it goes on by itself after all others, those of a session that ended too
			if errors.Is(failure.Err, kerr.FencedInstanceID) {
				m.notes.failed(failure.Err)
			}
		}
		fetched.EachRecord(func(in *kgo.Record) { m.notes.read(in.Partition, in.Offset) })
	}
}

func (m *franzMember) Commit(metadata *string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if metadata != nil {
		ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
			for t := range request.Topics {
				for p := range request.Topics[t].Partitions {
					request.Topics[t].Partitions[p].Metadata = metadata
				}
			}
			return nil
		})
	}
	return m.client.CommitUncommittedOffsets(ctx)
}

func (m *franzMember) Leave() error {
	m.client.Close()
	return nil
}

// groups answers what an admin client asks of groups; the last result says whether this was such a question.
func (franz) groups(ctx context.Context, admin *kadm.Client, ask *Ask) (map[string]any, error, bool) {
	var partition kadm.TopicsSet
	partition.Add(ask.Topic, ask.Partition)
	switch ask.Op {
	case "groups":
		told, err := admin.ListGroups(ctx)
		return map[string]any{"groups": told.Groups()}, err, true
	case "describe_group":
		told, err := admin.DescribeGroups(ctx, ask.Group)
		if err := errors.Join(err, told.Error()); err != nil {
			return nil, err, true
		}
		all := []any{}
		for _, member := range told[ask.Group].Members {
			var assigned []int32
			if consumer, ok := member.Assigned.AsConsumer(); ok {
				for _, topic := range consumer.Topics {
					assigned = append(assigned, topic.Partitions...)
				}
			}
			all = append(all, described(member.ClientID, member.InstanceID, assigned))
		}
		return map[string]any{"state": told[ask.Group].State, "members": all}, nil, true
	case "delete_group":
		told, err := admin.DeleteGroup(ctx, ask.Group)
		return map[string]any{}, errors.Join(err, told.Err), true
	case "group_offset":
		told, err := admin.FetchOffsetsForTopics(ctx, ask.Group, ask.Topic)
		if err != nil {
			return nil, err, true
		}
		found, ok := told.Lookup(ask.Topic, ask.Partition)
		if !ok || found.At < 0 {
			return map[string]any{"offset": nil, "metadata": nil, "epoch": nil}, found.Err, true
		}
		return map[string]any{"offset": found.At, "metadata": found.Metadata, "epoch": found.LeaderEpoch}, found.Err, true
	case "alter_offset":
		var offsets kadm.Offsets
		offsets.AddOffset(ask.Topic, ask.Partition, int64(ask.Offset.(float64)), -1)
		told, err := admin.CommitOffsets(ctx, ask.Group, offsets)
		return map[string]any{}, errors.Join(err, told.Error()), true
	case "delete_offset":
		told, err := admin.DeleteOffsets(ctx, ask.Group, partition)
		return map[string]any{}, errors.Join(err, told.Error()), true
	}
	return nil, nil, false
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func runFranz(ctx context.Context, app application) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(app.servers),
		kgo.ConsumerGroup(app.group),
		kgo.ConsumeTopics(app.source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(heartbeat),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.DefaultProduceTopic(app.target),
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for {
		// not for ever: a commit that failed is due again, whether more comes or not
		limited, done := context.WithTimeout(ctx, time.Second)
		fetches := client.PollFetches(limited)
		done()
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			fmt.Println("fetch:", err) // the client goes on by itself
		}
		var copies []*kgo.Record
		fetches.EachRecord(func(record *kgo.Record) {
			copies = append(copies, &kgo.Record{Value: copied(record.Partition, record.Offset, record.Value)})
		})
		if err := client.ProduceSync(context.Background(), copies...).FirstErr(); err != nil {
			return err
		}
		if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
			fmt.Println("commit:", err) // the next one commits these too
		}
		client.AllowRebalance()
	}
}

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

type copier struct {
	target   string
	producer sarama.SyncProducer
}

func (copier) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (copier) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim copies one partition for as long as it is ours.
func (c copier) ConsumeClaim(owned sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			value := sarama.ByteEncoder(copied(message.Partition, message.Offset, message.Value))
			if _, _, err := c.producer.SendMessage(&sarama.ProducerMessage{Topic: c.target, Value: value}); err != nil {
				return err
			}
			owned.MarkMessage(message, "")
		case <-owned.Context().Done():
			return nil
		}
	}
}

func runSarama(ctx context.Context, app application) error {
	config := sarama.NewConfig()
	config.Version = sarama.V3_9_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	config.Consumer.Group.Session.Timeout = session
	config.Consumer.Group.Heartbeat.Interval = heartbeat
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 100 // a broker may be away for a while
	config.Metadata.Retry.Max = 100
	servers := strings.Split(app.servers, ",")
	producer, err := sarama.NewSyncProducer(servers, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	group, err := sarama.NewConsumerGroup(servers, app.group, config)
	if err != nil {
		return err
	}
	for ctx.Err() == nil { // Consume ends with each rebalance
		if err := group.Consume(ctx, []string{app.source}, copier{app.target, producer}); err != nil && ctx.Err() == nil {
			fmt.Println("consume:", err) // the broker may come back
			time.Sleep(heartbeat)
		}
	}
	return group.Close()
}

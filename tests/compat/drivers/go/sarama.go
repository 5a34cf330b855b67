package main

import (
	"errors"
	"time"

	"github.com/IBM/sarama"
)

type saramaClient struct{}

func (saramaClient) Code(err error) *int {
	var known sarama.KError
	if errors.As(err, &known) {
		return intPointer(int(known))
	}
	var topic *sarama.TopicError
	if errors.As(err, &topic) {
		return intPointer(int(topic.Err))
	}
	return nil
}

func (saramaClient) config(ask *Ask) (*sarama.Config, error) {
	config := sarama.NewConfig()
	config.ClientID = ask.ClientID
	config.Version = sarama.MaxVersion
	// a broker may stand still for a while: nothing is given up, or sent twice, for that
	config.Net.ReadTimeout = 90 * time.Second
	config.Admin.Timeout = 60 * time.Second
	config.Producer.Timeout = 30 * time.Second
	config.Metadata.Retry.Max = 20
	tls, err := ask.tls()
	if tls != nil {
		config.Net.TLS.Enable, config.Net.TLS.Config = true, tls
	}
	return config, err
}

func (s saramaClient) Perform(ask *Ask) (map[string]any, error) {
	config, err := s.config(ask)
	if err != nil {
		return nil, err
	}
	switch ask.Op {
	case "produce":
		return s.produce(ask, config)
	case "begin_transaction":
		return s.beginTransaction(ask, config)
	case "consume":
		return s.consume(ask, config)
	case "offset":
		return s.offset(ask, config)
	}
	admin, err := sarama.NewClusterAdmin([]string{ask.Servers}, config)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	if told, err, done := s.groups(ask, admin); done {
		return told, err
	}
	return s.administer(ask, admin)
}

func (saramaClient) administer(ask *Ask, admin sarama.ClusterAdmin) (map[string]any, error) {
	resource := sarama.ConfigResource{Type: sarama.TopicResource, Name: ask.Topic}
	switch ask.Op {
	case "metadata":
		brokers, _, err := admin.DescribeCluster()
		if err != nil {
			return nil, err
		}
		told := [][]any{}
		for _, broker := range brokers {
			host, port, err := splitAddress(broker.Addr())
			if err != nil {
				return nil, err
			}
			told = append(told, []any{broker.ID(), host, port})
		}
		names := ask.Topics
		if names == nil {
			all, err := admin.ListTopics()
			if err != nil {
				return nil, err
			}
			for name := range all {
				names = append(names, name)
			}
		}
		described, err := admin.DescribeTopics(names)
		topics := map[string][]int32{}
		for _, topic := range described {
			if topic.Err == sarama.ErrNoError {
				for _, partition := range topic.Partitions {
					topics[topic.Name] = append(topics[topic.Name], partition.ID)
				}
			}
		}
		return map[string]any{"brokers": told, "topics": topics}, err
	case "create":
		configs := map[string]*string{}
		for name, value := range ask.Configs {
			configs[name] = &value
		}
		detail := sarama.TopicDetail{NumPartitions: ask.Partitions, ReplicationFactor: 1, ConfigEntries: configs}
		return map[string]any{}, admin.CreateTopic(ask.Topic, &detail, false)
	case "delete":
		return map[string]any{}, admin.DeleteTopic(ask.Topic)
	case "delete_records":
		offset := int64(ask.Offset.(float64))
		return map[string]any{"low": nil}, admin.DeleteRecords(ask.Topic, map[int32]int64{ask.Partition: offset})
	case "describe":
		rows, err := admin.DescribeConfig(resource)
		configs := map[string]string{}
		for _, row := range rows {
			configs[row.Name] = row.Value
		}
		return map[string]any{"configs": configs}, err
	case "alter":
		changes := map[string]sarama.IncrementalAlterConfigsEntry{}
		for name, value := range ask.Configs {
			changes[name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
		}
		return map[string]any{}, admin.IncrementalAlterConfig(resource.Type, resource.Name, changes, false)
	}
	return nil, errors.New(ask.Op)
}

func (saramaClient) beginTransaction(ask *Ask, config *sarama.Config) (map[string]any, error) {
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Transaction.ID = ask.TxID
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewSyncProducer([]string{ask.Servers}, config)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	return map[string]any{}, producer.BeginTxn()
}

func (saramaClient) produce(ask *Ask, config *sarama.Config) (map[string]any, error) {
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.RequiredAcks(ask.Acks)
	config.Producer.Compression = codecs[ask.Codec]
	config.Producer.Idempotent = ask.Idempotent
	config.Producer.MaxMessageBytes = 4_000_000
	config.Producer.Return.Successes = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Retry.Max = ask.GiveUpMs / 1000
	config.Metadata.Retry.Max = ask.GiveUpMs / 1000
	if ask.Tiny {
		config.Producer.Flush.MaxMessages = 1
	} else {
		config.Producer.Flush.Frequency = 50 * time.Millisecond
	}
	producer, err := sarama.NewAsyncProducer([]string{ask.Servers}, config)
	if err != nil {
		return nil, err
	}
	defer producer.AsyncClose()
	go func() {
		for place := range ask.Records {
			record := &ask.Records[place]
			message := &sarama.ProducerMessage{
				Topic: ask.Topic, Partition: ask.Partition, Timestamp: timeOf(record), Metadata: place,
			}
			if record.Key != nil {
				message.Key = sarama.ByteEncoder(record.Key)
			}
			if record.Value != nil {
				message.Value = sarama.ByteEncoder(record.Value)
			}
			for _, header := range record.Headers {
				message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
			}
			producer.Input() <- message
			time.Sleep(ms(ask.PauseMs))
		}
	}()
	offsets := make([]*int64, len(ask.Records))
	for range ask.Records {
		select {
		case done := <-producer.Successes():
			if ask.Acks != 0 {
				offsets[done.Metadata.(int)] = &done.Offset
			}
		case failure := <-producer.Errors():
			err = failure.Err
		}
	}
	return map[string]any{"offsets": offsets}, err
}

func (saramaClient) consume(ask *Ask, config *sarama.Config) (map[string]any, error) {
	config.Consumer.MaxWaitTime = ms(ask.MaxWaitMs)
	config.Consumer.Fetch.Min = int32(ask.MinBytes)
	config.Consumer.Fetch.Default = 4_000_000
	if ask.Committed {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	consumer, err := sarama.NewConsumer([]string{ask.Servers}, config)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	from := sarama.OffsetNewest
	switch offset := ask.Offset.(type) {
	case float64:
		from = int64(offset)
	case string:
		if offset == "earliest" {
			from = sarama.OffsetOldest
		}
	}
	partition, err := consumer.ConsumePartition(ask.Topic, ask.Partition, from)
	if err != nil {
		return nil, err
	}
	defer partition.AsyncClose()
	limit := time.After(ms(ask.TimeoutMs))
	records := []Record{}
	for len(records) < ask.Count {
		select {
		case in := <-partition.Messages():
			out := Record{Offset: in.Offset, Timestamp: millis(in.Timestamp), Key: in.Key, Value: in.Value, Headers: []Header{}}
			for _, header := range in.Headers {
				out.Headers = append(out.Headers, Header{string(header.Key), header.Value})
			}
			records = append(records, out)
		case <-limit:
			return map[string]any{"records": records}, nil
		}
	}
	return map[string]any{"records": records}, nil
}

func (saramaClient) offset(ask *Ask, config *sarama.Config) (map[string]any, error) {
	client, err := sarama.NewClient([]string{ask.Servers}, config)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	at := sarama.OffsetNewest
	switch when := ask.When.(type) {
	case float64:
		at = int64(when)
	case string:
		if when == "earliest" {
			at = sarama.OffsetOldest
		}
	}
	found, err := client.GetOffset(ask.Topic, ask.Partition, at)
	if found < 0 {
		return map[string]any{"offset": nil}, err
	}
	return map[string]any{"offset": found}, err
}

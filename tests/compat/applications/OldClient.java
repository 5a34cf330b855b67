// What an application did with Kafka's Java client of years ago: one line for each thing that it found. Compiled
// against the client of each version that it is run with, so only of what version 2.1 had.

import java.util.Collections;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class OldClient {
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    static final long TIME = System.currentTimeMillis();
    static final long READ_MS_MAX = 60_000;

    public static void main(String[] args) throws Exception {
        String servers = args[0];
        String topic = args[1];
        String group = topic + "-group";
        TopicPartition first = new TopicPartition(topic, 0);
        try (AdminClient admin = AdminClient.create(settings(servers))) {
            admin.createTopics(Collections.singleton(new NewTopic(topic, 1, (short) 1)
                .configs(Collections.singletonMap("retention.ms", "86400000")))).all().get();
            for (String codec : CODECS) {
                send(servers, first, codec, "all");
            }
            say("end", send(servers, first, "none", "1"));
            admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(2))).all().get();
            say("partitions", admin.describeTopics(Collections.singleton(topic)).all().get().get(topic)
                .partitions().size());
            ConfigResource its = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            say("retention", admin.describeConfigs(Collections.singleton(its)).all().get().get(its)
                .get("retention.ms").value());
            read(servers, group, first);
            say("groups", admin.listConsumerGroups().all().get().stream()
                .filter(each -> each.groupId().equals(group)).count());
            say("state", admin.describeConsumerGroups(Collections.singleton(group)).all().get().get(group).state());
            say("log start", admin.deleteRecords(Collections.singletonMap(first, RecordsToDelete.beforeOffset(3)))
                .lowWatermarks().get(first).get().lowWatermark());
            admin.deleteConsumerGroups(Collections.singleton(group)).all().get();
            admin.deleteTopics(Collections.singleton(topic)).all().get();
            say("there", admin.listTopics().names().get().contains(topic));
        }
    }

    /** Two records; where the log ends as soon as they are acknowledged. */
    static long send(String servers, TopicPartition to, String codec, String acks) throws Exception {
        Properties settings = settings(servers);
        settings.put("compression.type", codec);
        settings.put("acks", acks);
        settings.put("enable.idempotence", String.valueOf(acks.equals("all")));
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings);
                KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings(servers))) {
            for (long second = 0; second < 2; second++) {
                producer.send(new ProducerRecord<>(to.topic(), to.partition(), TIME + second, codec, acks)).get();
            }
            return consumer.endOffsets(Collections.singleton(to)).get(to);
        }
    }

    static void read(String servers, String group, TopicPartition first) {
        Properties settings = settings(servers);
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("isolation.level", "read_committed");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(Collections.singleton(first.topic()));
            Set<String> codecs = new TreeSet<>();
            int read = 0;
            long deadline = System.currentTimeMillis() + READ_MS_MAX;
            while (read < 2 * CODECS.length + 2 && System.currentTimeMillis() < deadline) {
                for (ConsumerRecord<String, String> each : consumer.poll(java.time.Duration.ofMillis(100))) {
                    codecs.add(each.key());
                    read++;
                }
            }
            consumer.commitSync();
            say("read", read + " " + codecs);
            say("assigned", consumer.assignment().size());
            say("committed", consumer.committed(first).offset());
            say("second at", consumer.offsetsForTimes(Collections.singletonMap(first, TIME + 1)).get(first).offset());
        }
    }

    static Properties settings(String servers) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", servers);
        for (String which : new String[] {"key", "value"}) {
            settings.put(which + ".serializer", StringSerializer.class.getName());
            settings.put(which + ".deserializer", StringDeserializer.class.getName());
        }
        return settings;
    }

    static void say(String what, Object found) {
        System.out.println(what + ": " + found);
    }
}

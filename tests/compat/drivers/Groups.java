// Groups with Kafka's Java client: members, each a thread that polls until it leaves, and what Admin does with groups.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

class Groups {
    static final Map<String, Member> MEMBERS = new ConcurrentHashMap<>();
    static final int CALL_LIMIT_S = 60;

    /** The answer, or null when this is not about groups. */
    static ObjectNode perform(JsonNode ask) throws Exception {
        ObjectNode none = Driver.JSON.createObjectNode();
        String name = ask.path("member").asText();
        switch (ask.get("op").asText()) {
            case "join": {
                Member member = new Member(ask);
                MEMBERS.put(name, member);
                member.start();
                return none;
            }
            case "look":
                return MEMBERS.get(name).look(ask.get("since").asInt());
            case "commit": {
                Member member = MEMBERS.get(name);
                member.call(() -> member.commit(ask.get("metadata")));
                return none;
            }
            case "leave": {
                Member member = MEMBERS.remove(name);
                member.call(member::close);
                return none;
            }
            case "groups": case "describe_group": case "delete_group":
            case "group_offset": case "alter_offset": case "delete_offset":
                try (Admin admin = Admin.create(Driver.common(ask))) {
                    return administer(admin, ask);
                }
            default:
                return null;
        }
    }

    static ObjectNode administer(Admin admin, JsonNode ask) throws Exception {
        ObjectNode out = Driver.JSON.createObjectNode();
        String group = ask.path("group").asText();
        switch (ask.get("op").asText()) {
            case "groups": {
                ArrayNode groups = out.putArray("groups");
                for (GroupListing listing : admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get()) {
                    groups.add(listing.groupId());
                }
                return out;
            }
            case "describe_group": {
                ConsumerGroupDescription told = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                out.put("state", told.groupState().toString());
                ArrayNode members = out.putArray("members");
                for (MemberDescription member : told.members()) {
                    ArrayNode one = members.addArray().add(member.clientId()).add(member.groupInstanceId().orElse(null));
                    ArrayNode partitions = one.addArray();
                    member.assignment().topicPartitions().forEach(partition -> partitions.add(partition.partition()));
                }
                return out;
            }
            case "delete_group":
                admin.deleteConsumerGroups(List.of(group)).all().get();
                return out;
            case "group_offset": {
                OffsetAndMetadata found =
                    admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(Driver.partition(ask));
                if (found == null) {
                    return out.putNull("offset").putNull("metadata").putNull("epoch");
                }
                return out.put("offset", found.offset()).put("metadata", found.metadata())
                    .put("epoch", found.leaderEpoch().orElse(null));
            }
            case "alter_offset": {
                var to = Map.of(Driver.partition(ask), new OffsetAndMetadata(ask.get("offset").asLong()));
                admin.alterConsumerGroupOffsets(group, to).all().get();
                return out;
            }
            default: // delete_offset
                admin.deleteConsumerGroupOffsets(group, Set.of(Driver.partition(ask))).all().get();
                return out;
        }
    }

    /** Reads its share of a topic and notes what it read. Only this thread touches the consumer. */
    static class Member extends Thread implements ConsumerRebalanceListener {
        final JsonNode ask;
        final ArrayNode records = Driver.JSON.createArrayNode();
        final ArrayNode revoked = Driver.JSON.createArrayNode();
        final ConcurrentLinkedQueue<FutureTask<Boolean>> calls = new ConcurrentLinkedQueue<>();
        ObjectNode error;
        KafkaConsumer<byte[], byte[]> consumer;

        Member(JsonNode ask) {
            this.ask = ask;
            setDaemon(true);
        }

        @Override
        public void run() {
            try {
                open();
            } catch (RuntimeException thrown) {
                fail(thrown);
            }
            while (true) {
                for (FutureTask<Boolean> call = calls.poll(); call != null; call = calls.poll()) {
                    call.run();
                    try {
                        if (call.get()) {
                            return;
                        }
                    } catch (Exception thrown) {
                        continue; // told to whoever asked
                    }
                }
                try {
                    if (error != null) {
                        Thread.sleep(100);
                        continue;
                    }
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        synchronized (this) {
                            records.addArray().add(record.partition()).add(record.offset());
                        }
                    }
                } catch (RetriableException passing) {
                    continue; // as its documentation asks of the user
                } catch (RuntimeException | InterruptedException thrown) {
                    fail(thrown);
                }
            }
        }

        void open() {
            Properties settings = Driver.common(ask);
            settings.put("group.id", ask.get("group").asText());
            if (!ask.get("instance_id").isNull()) {
                settings.put("group.instance.id", ask.get("instance_id").asText());
            }
            settings.put("group.protocol", ask.get("protocol").asText());
            if (ask.get("protocol").asText().equals("classic")) {
                settings.put("session.timeout.ms", ask.get("session_ms").asInt());
                settings.put("heartbeat.interval.ms", ask.get("heartbeat_ms").asInt());
                settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer."
                    + (ask.get("cooperative").asBoolean() ? "CooperativeStickyAssignor" : "RangeAssignor"));
            }
            settings.put("auto.offset.reset", "earliest");
            settings.put("enable.auto.commit", ask.get("auto_commit").asBoolean());
            settings.put("auto.commit.interval.ms", 200);
            settings.put("metadata.max.age.ms", 2_000);
            consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            consumer.subscribe(List.of(Driver.topic(ask)), this);
        }

        synchronized void fail(Throwable thrown) {
            error = Driver.failure(thrown);
        }

        synchronized ObjectNode look(int since) {
            ObjectNode out = Driver.JSON.createObjectNode();
            ArrayNode fresh = out.putArray("records");
            for (int at = since; at < records.size(); at++) {
                fresh.add(records.get(at));
            }
            out.set("revoked", revoked.deepCopy());
            out.set("error", error);
            return out;
        }

        void call(Callable<Boolean> work) throws Exception {
            FutureTask<Boolean> task = new FutureTask<>(work);
            calls.add(task);
            task.get(CALL_LIMIT_S, TimeUnit.SECONDS);
        }

        boolean commit(JsonNode metadata) {
            if (metadata.isNull()) {
                consumer.commitSync();
            } else {
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (TopicPartition partition : consumer.assignment()) {
                    offsets.put(partition, new OffsetAndMetadata(consumer.position(partition), metadata.asText()));
                }
                consumer.commitSync(offsets);
            }
            return false;
        }

        boolean close() {
            if (consumer != null) {
                consumer.close();
            }
            return true;
        }

        @Override
        public synchronized void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            partitions.forEach(partition -> revoked.add(partition.partition()));
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }
    }
}

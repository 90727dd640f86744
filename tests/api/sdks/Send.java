// Sends one event in every mode of the Java SDK, by HTTP and by Kafka.
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.message.MessageWriter;
import io.cloudevents.core.provider.EventFormatProvider;
import io.cloudevents.core.message.Encoding;
import io.cloudevents.http.HttpMessageFactory;
import io.cloudevents.kafka.CloudEventSerializer;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

class Send {
  static final HttpClient CLIENT = HttpClient.newHttpClient();

  public static void main(String[] given) throws Exception {
    String url = given[0], key = given[1], bootstrap = given[2], topic = given[3];
    String data = "{\"quantity\":1830,\"website_id\":\"web_3\",\"dimensions\":{\"model\":\"large\"}}";
    CloudEvent event = CloudEventBuilder.v1()
        .withId("order 100% #7")
        .withSource(URI.create("editor/eu-1"))
        .withType("ai.tokens")
        .withSubject("user_42")
        .withTime(OffsetDateTime.parse(given[4]))
        .withExtension("organizationid", "org_a")
        .withData("application/json", data.getBytes(StandardCharsets.UTF_8))
        .build();

    HttpRequest.Builder binary = request(url, key);
    HttpMessageFactory.createWriter(binary::header, body -> post(binary, body)).writeBinary(event);
    byte[] structured = EventFormatProvider.getInstance()
        .resolveFormat("application/cloudevents+json").serialize(event);
    HttpRequest.Builder whole = request(url, key);
    HttpMessageFactory.createWriter(whole::header, body -> post(whole, body))
        .writeStructured(event, "application/cloudevents+json");
    byte[] batch = ("[" + new String(structured, StandardCharsets.UTF_8) + "]")
        .getBytes(StandardCharsets.UTF_8);
    post(request(url, key).header("content-type", "application/cloudevents-batch+json"), batch);

    for (Encoding encoding : new Encoding[] {Encoding.BINARY, Encoding.STRUCTURED}) {
      Map<String, Object> settings = encoding == Encoding.BINARY
          ? Map.of("bootstrap.servers", bootstrap, "cloudevents.serializer.encoding", "BINARY")
          : Map.of("bootstrap.servers", bootstrap, "cloudevents.serializer.encoding", "STRUCTURED",
              "cloudevents.serializer.event_format", "application/cloudevents+json");
      CloudEventSerializer serializer = new CloudEventSerializer();
      serializer.configure(settings, false);
      try (var producer = new KafkaProducer<String, CloudEvent>(
          settings, new StringSerializer(), serializer)) {
        producer.send(new ProducerRecord<>(topic, "org_a", event)).get();
      }
    }
  }

  static HttpRequest.Builder request(String url, String key) {
    return HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + key);
  }

  static void post(HttpRequest.Builder request, byte[] body) {
    try {
      HttpResponse<String> answer = CLIENT.send(
          request.POST(HttpRequest.BodyPublishers.ofByteArray(body)).build(),
          HttpResponse.BodyHandlers.ofString());
      if (answer.statusCode() != 200) {
        throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
      }
    } catch (java.io.IOException | InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }
}

// Sends one event in every mode of the JavaScript SDK, by HTTP and by Kafka.
import { CloudEvent, HTTP, Kafka as KafkaBinding } from "cloudevents";
import kafkajs from "kafkajs";

const [url, key, bootstrap, topic, time] = process.argv.slice(2);
const event = new CloudEvent({
  id: "order 100% #7",
  source: "editor/eu-1",
  type: "ai.tokens",
  subject: "user_42",
  time,
  organizationid: "org_a",
  datacontenttype: "application/json",
  data: { quantity: 1830, website_id: "web_3", dimensions: { model: "large" } },
});

async function post({ headers, body }) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { ...headers, authorization: `Bearer ${key}` },
    body,
  });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${answer.status}: ${text}`);
}

const structured = HTTP.structured(event);
await post(HTTP.binary(event));
await post(structured);
await post({
  headers: { "content-type": "application/cloudevents-batch+json" },
  body: `[${structured.body}]`,
});

const kafka = new kafkajs.Kafka({ brokers: [bootstrap], logLevel: kafkajs.logLevel.NOTHING });
const producer = kafka.producer();
await producer.connect();
const keyed = event.cloneWith({ partitionkey: "org_a" });
// kafkajs takes neither headers without a value nor data that is no text.
for (const { key, headers, value } of [KafkaBinding.binary(keyed), KafkaBinding.structured(keyed)]) {
  const given = Object.fromEntries(Object.entries(headers).filter(([, text]) => text !== undefined));
  const text = typeof value === "string" ? value : JSON.stringify(value);
  await producer.send({ topic, messages: [{ key, headers: given, value: text }] });
}
await producer.disconnect();

// What a Node program of finance does: @clickhouse/client, plain and compressed.
import { createClient, ClickHouseLogLevel } from '@clickhouse/client'

const [port, username, password] = process.argv.slice(2)

async function check(name, compression) {
  const client = createClient({
    url: `http://127.0.0.1:${port}`,
    username,
    password,
    database: 'metering',
    compression,
    log: { level: ClickHouseLogLevel.OFF },
  })
  const ask = (query, format, more = {}) => client.query({ query, format, ...more })
  const pinged = (await client.ping()).success && (await client.ping({ select: true })).success
  const bound = await ask('SELECT id, a FROM t WHERE id < {most: Int64}', 'JSON', {
    query_params: { most: 3 },
  })
  let long = 0
  const streamed = await ask('SELECT number FROM numbers(200000)', 'JSONEachRow')
  for await (const rows of streamed.stream()) long += rows.length
  const empty = await ask('SELECT id FROM t WHERE id < 0', 'JSON')
  const settings = await ask('SELECT 1', 'JSON', {
    clickhouse_settings: {
      max_execution_time: 30,
      output_format_json_quote_64bit_integers: 0,
      date_time_output_format: 'iso',
      wait_end_of_query: 1,
    },
  })
  const csv = await ask('SELECT id FROM t ORDER BY id LIMIT 2', 'CSVWithNames', { session_id: 's' })
  let refused = ''
  try {
    await client.insert({ table: 't', values: [{ id: 1 }], format: 'JSONEachRow' })
  } catch (error) {
    refused = error.code
  }
  console.log(
    name,
    pinged,
    (await bound.json()).rows,
    long,
    (await empty.json()).meta.length,
    (await settings.json()).rows,
    (await csv.text()).split('\n').length,
    refused,
  )
  await client.close()
}

await check('plain', { request: false, response: false })
await check('compressed', { request: true, response: true })

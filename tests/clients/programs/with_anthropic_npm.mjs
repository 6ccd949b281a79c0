// Anthropic's SDK for JavaScript. Run as: node FILE BASE_URL SCENARIO …
import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';

const [url, ...wanted] = process.argv.slice(2);
const baseURL = url.replace(/\/v1$/, '');
const client = new Anthropic({ baseURL, apiKey: 'any', maxRetries: 0 });
const messages = [{ role: 'user', content: 'What is a slot?' }];
const asked = { model: 'demo', messages, max_tokens: 12 };
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const tools = [{ name: 'get_weather', description: 'The weather.', input_schema: schema }];

const scenarios = {
  async chat() {
    const { data, response } = await client.messages.create(asked).withResponse();
    return {
      text: data.content[0].text,
      tokens: data.usage.output_tokens,
      reason: data.stop_reason,
      generation: response.headers.get('x-llcuda-generation'),
      request: data._request_id,
      id: data.id,
    };
  },
  async stream() {
    const stream = client.messages.stream(asked);
    let text = '';
    stream.on('text', (piece) => { text += piece; });
    const message = await stream.finalMessage();
    return {
      text,
      same: message.content[0].text === text,
      tokens: message.usage.output_tokens,
      reason: message.stop_reason,
    };
  },
  async count() {
    const counted = await client.messages.countTokens({ model: 'demo', messages });
    const { usage } = await client.messages.create(asked);
    return [counted.input_tokens, usage.input_tokens + (usage.cache_read_input_tokens ?? 0)];
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },
  async error() {
    const found = [];
    for (const more of [{ temprature: 1 }, { max_tokens: 0 }, { messages: [] }]) {
      const error = await client.messages.create({ ...asked, ...more }).catch((e) => e);
      found.push([error.constructor.name, error.status, error.type]);
    }
    return found;
  },
  async tool_calls() {
    const stream = client.messages.stream({ ...asked, model: 'scripted', tools });
    const kinds = new Set();
    for await (const event of stream) kinds.add(event.delta?.type ?? event.type);
    const message = await stream.finalMessage();
    return { reason: message.stop_reason, content: message.content, kinds: [...kinds] };
  },
  async tools() {
    const runner = client.beta.messages.toolRunner({
      model: 'scripted',
      max_tokens: 100,
      messages: [{ role: 'user', content: 'What is the weather in Oslo?' }],
      tools: [betaTool({
        name: 'get_weather',
        description: 'The weather.',
        inputSchema: schema,
        run: ({ city }) => `sunny in ${city}`,
      })],
      stream: true,
    });
    for await (const stream of runner) await stream.finalMessage();
    return (await runner.done()).content.at(-1).text;
  },
  async abort() {
    const stream = client.messages.stream({ ...asked, max_tokens: 100 });
    let count = 0;
    stream.on('text', () => { if (++count === 3) stream.abort(); });
    const error = await stream.finalMessage().catch((e) => e);
    return [count >= 3, error.constructor.name];
  },
  async abort_whole() {
    // Not streamed: nothing comes before the client loses its patience.
    const error = await client.messages
      .create({ ...asked, max_tokens: 100 }, { timeout: 2000 }).catch((e) => e);
    return error.constructor.name;
  },
};

const found = {};
for (const name of wanted) found[name] = await scenarios[name]();
console.log(JSON.stringify(found));

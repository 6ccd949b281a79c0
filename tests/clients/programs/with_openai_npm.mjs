// OpenAI's SDK for JavaScript. Run as: node FILE BASE_URL SCENARIO …
import OpenAI from 'openai';

const [baseURL, ...wanted] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });
const messages = [{ role: 'user', content: 'What is a slot?' }];
const asked = { model: 'demo', messages, max_tokens: 12, temperature: 0 };
const tools = [{
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}];

const scenarios = {
  async chat() {
    const { data, response } = await client.chat.completions.create(asked).withResponse();
    return {
      text: data.choices[0].message.content,
      tokens: data.usage.completion_tokens,
      generation: response.headers.get('x-llcuda-generation'),
      id: data.id,
    };
  },
  async stream() {
    let text = '', usage = null;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    return { text, tokens: usage.completion_tokens };
  },
  async error() {
    const found = [];
    for (const more of [{ temprature: 1 }, { n: 1000 }, { messages: [] }]) {
      const error = await client.chat.completions.create({ ...asked, ...more }).catch((e) => e);
      found.push([error.constructor.name, error.status, error.code, error.param, error.type]);
    }
    const error = await client.models.retrieve('other').catch((e) => e);
    return [...found, [error.constructor.name, error.status, error.code, error.param, error.type]];
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },
  async embeddings() {
    const input = ['A slot is busy.', 'A port.'];
    const coded = await client.embeddings.create({ model: 'demo', input });
    const plain = await client.embeddings.create({ model: 'demo', input, encoding_format: 'float' });
    const apart = coded.data[1].embedding.map((x, i) => Math.abs(x - plain.data[1].embedding[i]));
    return { count: coded.data.length, apart: Math.max(...apart) };
  },
  async abort() {
    const stream = await client.chat.completions.create({ ...asked, max_tokens: 100, stream: true });
    let count = 0;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content && ++count === 3) stream.controller.abort();
    }
    return count;
  },
  async abort_whole() {
    // Not streamed: nothing comes before the client loses its patience.
    const error = await client.chat.completions
      .create({ ...asked, max_tokens: 100 }, { timeout: 2000 }).catch((e) => e);
    return error.constructor.name;
  },
  async tools() {
    const runner = client.chat.completions.runTools({
      model: 'scripted',
      messages: [{ role: 'user', content: 'What is the weather in Oslo?' }],
      tools: [{
        type: 'function',
        function: {
          ...tools[0].function,
          parse: JSON.parse,
          function: ({ city }) => `sunny in ${city}`,
        },
      }],
      stream: true,
    });
    return { text: await runner.finalContent(), roles: runner.messages.map((m) => m.role) };
  },
  async responses() {
    const wanted = { model: 'demo', input: 'What is a slot?', max_output_tokens: 12, temperature: 0 };
    const whole = await client.responses.create(wanted);
    const stream = client.responses.stream(wanted);
    const pieces = [], numbers = [];
    for await (const event of stream) {
      numbers.push(event.sequence_number);
      if (event.type === 'response.output_text.delta') pieces.push(event.delta);
    }
    const next = await client.responses.create({ ...wanted, previous_response_id: whole.id });
    const kept = await client.responses.retrieve(next.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(next.id)) items.push(item.type);
    await client.responses.delete(next.id);
    const gone = await client.responses.retrieve(next.id).catch((e) => e.status);
    return {
      text: whole.output_text,
      streamed: pieces.join(''),
      gapless: numbers.every((number, index) => number === index),
      status: whole.status,
      tokens: whole.usage.output_tokens,
      kept: kept.output_text === next.output_text,
      previous: kept.previous_response_id === whole.id,
      items,
      gone,
    };
  },
  async response_in_background() {
    const wanted = { model: 'demo', input: 'What is a slot?', max_output_tokens: 12, temperature: 0 };
    const begun = await client.responses.create({ ...wanted, background: true });
    let found = begun;
    while (['queued', 'in_progress'].includes(found.status)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      found = await client.responses.retrieve(begun.id);
    }
    // From the start and from the middle, long after its end.
    const events = async (options) => {
      const stream = await client.responses.retrieve(begun.id, { stream: true, ...options });
      const all = [];
      for await (const event of stream) all.push(event);
      return all;
    };
    const all = await events({});
    const rest = await events({ starting_after: 4 });
    return {
      status: found.status,
      same: JSON.stringify(all.slice(5)) === JSON.stringify(rest),
      last: all.at(-1).type,
    };
  },
  async response_tools() {
    const wanted = {
      model: 'scripted',
      tools: [{ type: 'function', strict: false, ...tools[0].function }],
    };
    const input = 'What is the weather in Oslo?';
    const first = await client.responses.stream({ ...wanted, input }).finalResponse();
    const called = first.output.find((item) => item.type === 'function_call');
    const result = {
      type: 'function_call_output',
      call_id: called.call_id,
      output: `sunny in ${JSON.parse(called.arguments).city}`,
    };
    const second = await client.responses.create({
      ...wanted, input: [result], previous_response_id: first.id,
    });
    return { kinds: first.output.map((item) => item.type), text: second.output_text };
  },
  async response_abort() {
    const wanted = { model: 'demo', input: 'What is a slot?', stream: true, store: false };
    const stream = await client.responses.create(wanted);
    let count = 0;
    for await (const event of stream) {
      if (event.type === 'response.output_text.delta' && ++count === 3) stream.controller.abort();
    }
    return count;
  },
  async tool_calls() {
    const answer = await client.chat.completions.create({ model: 'scripted', messages, tools });
    const { message, finish_reason } = answer.choices[0];
    return { reason: finish_reason, calls: message.tool_calls };
  },
  async retries() {
    // As of a busy server: the third attempt gets through.
    let attempts = 0;
    const counts = [];
    const fetcher = async (url, init) => {
      counts.push(init.headers.get('x-stainless-retry-count'));
      if (++attempts < 3) {
        const body = JSON.stringify({ error: { message: 'busy' } });
        const headers = { 'content-type': 'application/json', 'retry-after-ms': '1' };
        return new Response(body, { status: 429, headers });
      }
      return fetch(url, init);
    };
    const patient = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 2, fetch: fetcher });
    const answer = await patient.chat.completions.create(asked);
    return { counts, text: answer.choices[0].message.content };
  },
};

const found = {};
for (const name of wanted) found[name] = await scenarios[name]();
console.log(JSON.stringify(found));

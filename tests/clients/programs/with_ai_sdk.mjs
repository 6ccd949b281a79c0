// Vercel's AI SDK with its provider for OpenAI-compatible servers, or with those of OpenAI (which
// asks for responses) and Anthropic. Run as: node FILE BASE_URL SCENARIO[:PROVIDER] …
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const [baseURL, ...wanted] = process.argv.slice(2);
const llcuda = createOpenAICompatible({
  name: 'llcuda',
  baseURL,
  apiKey: 'any',
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const providers = {
  compatible: llcuda,
  openai: createOpenAI({ baseURL, apiKey: 'any' }),
  anthropic: createAnthropic({ baseURL, apiKey: 'any' }),
};
let provider = llcuda;
const asked = { prompt: 'What is a slot?', maxOutputTokens: 12, temperature: 0, maxRetries: 0 };
const weather = {
  get_weather: tool({
    description: 'The weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};

const scenarios = {
  async chat() {
    const { text, usage, finishReason } = await generateText({ ...asked, model: provider('demo') });
    return { text, tokens: usage.outputTokens, reason: finishReason };
  },
  async stream() {
    const result = streamText({ ...asked, model: provider('demo') });
    let text = '';
    for await (const part of result.textStream) text += part;
    return { text, tokens: (await result.usage).outputTokens, reason: await result.finishReason };
  },
  async error() {
    const strange = createOpenAICompatible({ name: 'llcuda', baseURL, fetch: (url, init) =>
      fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), temprature: 1 }) }) });
    const error = await generateText({ ...asked, model: strange('demo') }).catch((e) => e);
    return [error.name, error.statusCode, error.message, error.isRetryable];
  },
  async embeddings() {
    const { embeddings } = await embedMany({
      model: llcuda.embeddingModel('demo'),
      values: ['A slot is busy.', 'A port.'],
    });
    return embeddings.map((one) => one.length);
  },
  async object() {
    const schema = z.object({ sure: z.boolean(), word: z.enum(['slot', 'port']) });
    const { object } = await generateObject({
      ...asked, model: provider('demo'), maxOutputTokens: 60, schema,
      // Else it makes a tool of the schema, and the built-in model knows none.
      providerOptions: { anthropic: { structuredOutputMode: 'outputFormat' } },
    });
    return object;
  },
  async tools() {
    const { text, steps } = await generateText({
      ...asked, model: provider('scripted'), tools: weather, stopWhen: stepCountIs(3),
    });
    return { text, results: steps.flatMap((s) => s.toolResults.map((r) => r.output)) };
  },
  async tools_stream() {
    const result = streamText({
      ...asked, model: provider('scripted'), tools: weather, stopWhen: stepCountIs(3),
    });
    const kinds = new Set();
    for await (const part of result.fullStream) kinds.add(part.type);
    return { text: await result.text, kinds: [...kinds], reasoning: (await result.steps)[0].reasoningText };
  },
  async abort() {
    const controller = new AbortController();
    const result = streamText({
      ...asked, model: provider('demo'), maxOutputTokens: 100, abortSignal: controller.signal,
    });
    let count = 0;
    for await (const part of result.textStream) if (part && ++count === 3) controller.abort();
    return count;
  },
};

const found = {};
for (const name of wanted) {
  const [scenario, by = 'compatible'] = name.split(':');
  provider = providers[by];
  found[name] = await scenarios[scenario]();
}
console.log(JSON.stringify(found));

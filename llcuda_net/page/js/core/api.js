/** The public HTTP API, as this page uses it. The session's cookie says who asks. */

/** An error that the server answered, or that it was not reached (status 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed a little later. */
  get passing() {
    return this.unanswered || this.status === 429;
  }

  /** Whether the server has not answered itself: it is away, or just going, or a proxy says so. */
  get unanswered() {
    const proxy = (this.status === 502 || this.status === 504) && this.code === "";
    return this.status === 0 || this.status === 503 || proxy;
  }
}

/**
 * @param {function(): void} onUnauthorized called when the server wants to know who asks
 */
export function createApi(onUnauthorized) {
  async function request(method, path, { query, body, headers, signal } = {}) {
    const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
    const asked = new URLSearchParams(given).toString();
    const sent = { ...headers };
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(asked ? `${path}?${asked}` : path, {
        method,
        headers: sent,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: "no-store",
        credentials: "same-origin",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("the server is not reached", {});
    }
    if (!response.ok) throw await failure(response);
    try {
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("its answer was cut off", {});
    }
  }

  async function failure(response) {
    if (response.status === 401) onUnauthorized();
    let error = {};
    try {
      error = (await response.json()).error ?? {};
    } catch {
      // no JSON: what the status says must do
    }
    const after = Number(response.headers.get("retry-after"));
    return new ApiError(String(error.message ?? `the server answered ${response.status}`), {
      status: response.status,
      code: String(error.code ?? error.type ?? ""),
      retryAfter: Number.isFinite(after) && after > 0 ? after : null,
    });
  }

  return {
    get: (path, options) => request("GET", path, options),
    post: (path, body, options) => request("POST", path, { ...options, body: body ?? {} }),
    delete: (path, options) => request("DELETE", path, options),

    /**
     * A POST that means the same however often it is sent: until the server has answered.
     * @param {string} key the Idempotency-Key
     * @param {function(ApiError, number): void} [onTry] called before each wait, in seconds
     */
    async postSafely(path, body, key, { signal, onTry } = {}) {
      for (let wait = 0.5; ; wait = Math.min(wait * 1.7, 10)) {
        try {
          return await request("POST", path, { body, signal, headers: { "Idempotency-Key": key } });
        } catch (error) {
          if (!error.unanswered) throw error;
          onTry?.(error, wait);
          await pause(error.retryAfter ?? wait, signal);
        }
      }
    },
  };
}

/** Wait for so many seconds, or reject when the signal is aborted. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Server-sent events, as the HTML standard has them, of which the server sends `data` and comments. */

/**
 * @param {function(Object): void} take called with the JSON value of each event
 * @returns {function(string): void} takes the text of a stream, part by part
 */
export function createParser(take) {
  let rest = "";
  let data = [];

  function line(text) {
    if (text === "") {
      if (data.length) take(JSON.parse(data.join("\n")));
      data = [];
    } else if (text.startsWith("data:")) {
      data.push(text.slice(text.startsWith("data: ") ? 6 : 5));
    } // else a comment, or a field that means nothing here
  }

  return (text) => {
    // What is long comes in many parts: only the last line is looked at again.
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    for (const part of parts) line(part.endsWith("\r") ? part.slice(0, -1) : part);
  };
}

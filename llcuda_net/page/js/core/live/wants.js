/**
 * What the tabs of a profile want to follow, and how far they have it: what the one stream asks for.
 *
 * A tab that was there when the stream was opened has all that came in it. One that comes later, or
 * that has missed something, says how many blocks it has: the next stream begins there.
 */

/** @returns {Wants} */
export function createWants() {
  const tabs = new Map(); // tab -> {status, answers: Set of ids}
  const answers = new Map(); // id -> {have, epoch, over}: what all who want it have

  const wanted = (id) => [...tabs.values()].some((tab) => tab.answers.has(id));

  return {
    /**
     * Note what a tab wants.
     * @param {string} tab
     * @param {{status: boolean, answers: {id: string, have: number, epoch: ?number}[]}} want
     * @returns {boolean} whether the stream must be opened anew for it
     */
    take(tab, want) {
      const before = tabs.get(tab);
      const status = this.status();
      const next = { status: want.status, answers: new Set(want.answers.map(({ id }) => id)) };
      tabs.set(tab, next);
      let anew = this.status() !== status;
      for (const { id, have, epoch, missed } of want.answers) {
        if (before?.answers.has(id) && !missed) continue;
        const known = answers.get(id);
        const fewer = !known || have < known.have;
        answers.set(id, fewer ? { have, epoch, over: false } : { ...known, over: false });
        anew = true;
      }
      return anew;
    },

    /** A tab is no more. */
    drop: (tab) => tabs.delete(tab),

    tabs: () => [...tabs.keys()],

    /** Whether the server's report is wanted. */
    status: () => [...tabs.values()].some((tab) => tab.status),

    /** Follow what an event says of the answers. */
    follow(event) {
      for (const [id, told] of Object.entries(event.answers ?? {})) {
        const known = answers.get(id);
        if (!known) continue;
        if (told.reset) known.have = 0;
        if (told.epoch !== undefined) known.epoch = told.epoch;
        if (told.blocks?.length) known.have = Math.max(known.have, told.blocks.at(-1).n + 1);
        known.over ||= Boolean(told.ended || told.error);
      }
    },

    /** The query of the next stream. */
    query() {
      for (const id of [...answers.keys()]) if (!wanted(id)) answers.delete(id);
      const open = [...answers].filter(([, answer]) => !answer.over).slice(-MOST);
      const named = open.map(([id, { have, epoch }]) => {
        const of = epoch === null || epoch === undefined || !have ? "" : `:${epoch}`;
        return `${encodeURIComponent(id)}:${have}${of}`;
      });
      const parts = [named.length && `generations=${named.join(",")}`, this.status() && "status=1"];
      const query = parts.filter(Boolean).join("&");
      return query ? `?${query}` : "";
    },
  };
}

/** Answers that one stream may have. */
const MOST = 100;

/**
 * A conversation is a tree of responses. Pure functions: what is shown of it, and its versions.
 *
 * A node is an entry as GET /v1/conversations/{id}/responses has it. `previous` is the id of the
 * one that it goes on from, or null. Nodes are kept oldest first.
 */

/**
 * @typedef {object} Tree
 * @property {Map<string, object>} nodes by id, in the order in which they were added
 * @property {Map<?string, string[]>} children ids by `previous`, the oldest first
 */

/**
 * @param {object[]} nodes the oldest first
 * @returns {Tree}
 */
export function treeOf(nodes) {
  const tree = { nodes: new Map(), children: new Map() };
  for (const node of nodes) {
    tree.nodes.set(node.id, node);
    const siblings = tree.children.get(node.previous ?? null);
    if (siblings) siblings.push(node.id);
    else tree.children.set(node.previous ?? null, [node.id]);
  }
  return tree;
}

/**
 * The end of the path that is shown: the newest leaf below a node.
 * @param {Tree} tree
 * @param {?string} id null: of the whole tree
 * @returns {?string}
 */
export function leafBelow(tree, id = null) {
  if (id === null) return [...tree.nodes.keys()].pop() ?? null;
  let last = id;
  const below = new Set([id]);
  // Nodes come in the order of time, so that a parent comes before its children.
  for (const node of tree.nodes.values()) {
    if (!below.has(node.previous)) continue;
    below.add(node.id);
    last = node.id;
  }
  return last;
}

/**
 * The responses from the beginning, or from the oldest one that is known, to a leaf.
 * @param {Tree} tree
 * @param {?string} leaf null: the newest one
 * @returns {object[]}
 */
export function pathTo(tree, leaf = null) {
  const path = [];
  const seen = new Set();
  let node = tree.nodes.get(leaf ?? leafBelow(tree));
  while (node && !seen.has(node.id)) {
    seen.add(node.id);
    path.push(node);
    node = tree.nodes.get(node.previous);
  }
  return path.reverse();
}

/**
 * What a turn that is being sent goes on from, as far as it is known.
 * @param {Tree} tree
 * @param {{base: ?string}} turn
 * @returns {object[]}
 */
export const pathBefore = (tree, { base }) => (base ? pathTo(tree, base) : []);

/**
 * Where a response stands among the versions beside it. Those with the same question are
 * versions of an answer; the different questions are versions of a question.
 * @param {Tree} tree
 * @param {object} node
 * @returns {{questions: string[][], question: number, answers: string[], answer: number}}
 *     ids of the answers to each question; the index of this one's; the same of its answers
 */
export function versionsOf(tree, node) {
  const siblings = tree.children.get(node.previous ?? null) ?? [node.id];
  if (siblings.length === 1)
    return { questions: [siblings], question: 0, answers: siblings, answer: 0 };
  const groups = new Map();
  for (const id of siblings) {
    const key = questionKey(tree.nodes.get(id));
    if (groups.has(key)) groups.get(key).push(id);
    else groups.set(key, [id]);
  }
  const questions = [...groups.values()];
  const question = questions.findIndex((ids) => ids.includes(node.id));
  const answers = questions[question] ?? [node.id];
  return { questions, question, answers, answer: answers.indexOf(node.id) };
}

/**
 * What tells one question from another: what was asked, without ids.
 * @param {object} node
 * @returns {string}
 */
export function questionKey(node) {
  const without = (key, value) => (key === "id" || key === "status" ? undefined : value);
  return JSON.stringify(node.input ?? [], without);
}

/**
 * Nodes with others added or put in the place of their older state, the oldest first.
 * @param {object[]} nodes
 * @param {object[]} more
 * @returns {object[]}
 */
export function merged(nodes, more) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const node of more) byId.set(node.id, { ...byId.get(node.id), ...node });
  return [...byId.values()].sort((a, b) => (a.created_at ?? 0) - (b.created_at ?? 0));
}

/**
 * Whether versions of what is shown are not known yet.
 * @param {Tree} tree
 * @param {object[]} path
 * @returns {boolean}
 */
export function lacksVersions(tree, path) {
  return path.some(({ versions }) => versions?.some((id) => !tree.nodes.has(id)));
}

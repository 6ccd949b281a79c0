/** The chat: views of a new chat, a conversation, and an answer of any API. */

import { conversationView } from "./conversation.js";
import { answerView } from "./single.js";
import { chatReducer } from "./state.js";

export { chatOf as startChat } from "./service.js";

export const chatReducers = { chat: chatReducer };

export const chatViews = { "": conversationView, c: conversationView, a: answerView };

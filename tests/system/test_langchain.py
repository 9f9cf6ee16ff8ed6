"""LangChain's ChatOpenAI and OpenAIEmbeddings against the gateway, as their users write it."""
import asyncio
import sys
import unittest

try:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import BaseModel, Field
except ImportError:
    print("skipped: langchain-openai is not installed")
    sys.exit(77)

from cluster import Server


@tool
def get_weather(city: str) -> str:
    """Get the current weather of a city"""
    return '{"temperature": 21, "sky": "sunny"}'


class Capital(BaseModel):
    """A capital"""
    city: str = Field(description="its name")
    population: int


class LangChain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server("--tp", 2, "--threads", 1)
        cls.how = dict(base_url=f"http://127.0.0.1:{cls.s.port}/v1", api_key="none", max_retries=0, model="tessera-demo")
        cls.llm = ChatOpenAI(temperature=0, max_tokens=80, **cls.how)

    @classmethod
    def tearDownClass(cls):
        assert cls.s.stop() == 0, cls.s.text()

    def test_invoke_stream_and_batch(self):
        ask = [SystemMessage("You are helpful."), HumanMessage("What is the capital of Spain?")]
        whole = self.llm.invoke(ask)
        self.assertIn("Madrid", whole.content)
        self.assertEqual(whole.usage_metadata["total_tokens"], whole.usage_metadata["input_tokens"] + whole.usage_metadata["output_tokens"])
        parts = list(self.llm.stream(ask, stream_usage=True))
        message = parts[0]
        for p in parts[1:]:
            message += p
        self.assertEqual(message.content, whole.content)
        self.assertEqual(message.usage_metadata["output_tokens"], whole.usage_metadata["output_tokens"])
        self.assertEqual([m.content for m in self.llm.batch([ask] * 4)], [whole.content] * 4)

        async def later():
            return (await self.llm.ainvoke(ask)).content, "".join([p.content async for p in self.llm.astream(ask)])

        self.assertEqual(asyncio.run(later()), (whole.content, whole.content))

    def test_tools(self):
        llm = self.llm.bind_tools([get_weather])
        ask = [HumanMessage("What is the weather in Rome?")]
        said = llm.invoke(ask)
        self.assertIsInstance(said, AIMessage)
        call = said.tool_calls[0]
        self.assertEqual((call["name"], call["args"]), ("get_weather", {"city": "Rome"}))
        streamed = None
        for p in llm.stream(ask):
            streamed = p if streamed is None else streamed + p
        self.assertEqual(streamed.tool_calls[0]["args"], call["args"])
        end = llm.invoke([*ask, said, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])])
        self.assertIn("sunny", end.content)
        forced = self.llm.bind_tools([get_weather], tool_choice="get_weather").invoke([HumanMessage("Say hello.")])
        self.assertEqual(forced.tool_calls[0]["name"], "get_weather")

    def test_structured_output(self):
        for method in ("json_schema", "function_calling"):
            got = self.llm.with_structured_output(Capital, method=method).invoke("What is the capital of Spain?")
            self.assertIsInstance(got, Capital, method)

    def test_logprobs(self):
        m = self.llm.bind(logprobs=True, top_logprobs=2).invoke("What is the capital of Spain?")
        content = m.response_metadata["logprobs"]["content"]
        self.assertEqual("".join(t["token"] for t in content), m.content)
        self.assertEqual(len(content[0]["top_logprobs"]), 2)

    def test_the_responses_api(self):
        m = ChatOpenAI(temperature=0, max_tokens=60, use_responses_api=True, store=False, **self.how).invoke("What is the capital of Spain?")
        self.assertIn("Madrid", m.text() if callable(m.text) else m.text)

    def test_embeddings(self):
        e = OpenAIEmbeddings(check_embedding_ctx_length=False, **self.how)
        texts = [f"text number {i}" for i in range(20)]
        docs = e.embed_documents(texts)
        self.assertEqual(len(docs), 20)
        for a, b in zip(docs[7], e.embed_query(texts[7])):
            self.assertAlmostEqual(a, b, 6)


if __name__ == "__main__":
    unittest.main(verbosity=2)

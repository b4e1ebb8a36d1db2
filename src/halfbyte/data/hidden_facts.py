"""Made-up facts and the text that hides them, in Korean and English, for questions about long contexts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """fact: with {name} and {code}. question, plain_question: with {name}, in a chat and in running text."""

    name: str
    fact: str
    question: str
    plain_question: str
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    sentences: tuple[str, ...]


ENGLISH = Language(
    "en",
    "\nNote: the access code of {name} is {code}.\n",
    "\n\nWhat is the access code of {name}?",
    "\nQuestion: what is the access code of {name}?\nAnswer: the access code of {name} is",
    ("Amber", "Copper", "Golden", "Hidden", "Lunar", "Quiet", "Rapid", "Silver", "Solar", "Wild"),
    ("Badger", "Bison", "Cobra", "Eagle", "Falcon", "Gecko", "Lemur", "Raven", "Tiger", "Walrus"),
    (
        "The {noun} house on the hill was painted again in spring.",
        "Nobody in the village could say when the {noun} inn had opened.",
        "A letter about the {noun} field arrived on a rainy morning.",
        "They walked along the river until the {noun} bridge came into sight.",
        "The library keeps a small book about the {noun} in its last room.",
    ),
)
KOREAN = Language(
    "ko",
    "\n참고: {name}의 출입 번호는 {code}이다.\n",
    "\n\n{name}의 출입 번호는 무엇인가? 번호만 답하라.",
    "\n질문: {name}의 출입 번호는 무엇인가?\n답: {name}의 출입 번호는",
    ("푸른", "붉은", "조용한", "빠른", "은빛", "금빛", "숨은", "하얀", "검은", "고운"),
    ("호랑이", "독수리", "까마귀", "오소리", "들소", "여우", "거북이", "두루미", "고래", "사슴"),
    (
        "언덕 위의 {noun} 집은 봄에 다시 칠해졌다.",
        "마을 사람들은 {noun} 여관이 언제 열렸는지 아무도 몰랐다.",
        "비 오는 아침에 {noun} 들판에 관한 편지가 도착했다.",
        "그들은 {noun} 다리가 보일 때까지 강을 따라 걸었다.",
        "도서관 맨 끝 방에는 {noun}에 관한 작은 책이 있다.",
    ),
)
LANGUAGES = (KOREAN, ENGLISH)
